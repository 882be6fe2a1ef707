"""DS-CNN: depthwise separable convolutions for signals and spectrograms (Zhang et al. 2017, arXiv 1711.07128)."""

from typing import ClassVar

from torch import nn

from spaces.architectures.blocks import Head, conv_bn, n_axes, too_small
from spaces.architectures.family import Family, Knobs, Shape
from spaces.knob_spec import KnobSpec

BLOCKS = ("separable", "full")


class DSCNN(Family):
    """A convolution, blocks of depthwise and pointwise convolutions, the mean, and a linear layer.

    Inputs are signals `(channels, time)` or images `(channels, height, width)`.
    """

    name: ClassVar[str] = "ds_cnn"
    knobs = (
        KnobSpec("width", 64, "channels of the first blocks", low=4, high=512),
        KnobSpec("depth", 4, "number of blocks", low=1, high=16),
        KnobSpec("kernel", 3, "kernel size of the blocks", (3, 5, 7, 9)),
        KnobSpec("stem_kernel", 5, "kernel size of the first convolution", (3, 5, 7, 9, 11)),
        KnobSpec("stem_stride", 2, "stride of the first convolution", (1, 2, 4)),
        KnobSpec("halvings", 0, "number of blocks with stride 2, which are the first ones", low=0, high=4),
        KnobSpec("growth", 1.0, "factor on the channels at each of them", (1.0, 1.5, 2.0)),
        KnobSpec("block", "separable", "separable: depthwise and pointwise; full: one convolution", BLOCKS),
        KnobSpec("dropout", 0.0, "share of the features that is dropped in training", low=0.0, high=0.8),
    )

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        axes, width = n_axes(input_shape), float(values["width"])
        n_in = int(width)
        layers: list[nn.Module] = [
            conv_bn(axes, input_shape[0], n_in, values["stem_kernel"], values["stem_stride"])
        ]
        for at in range(values["depth"]):
            halves = at < values["halvings"]
            width *= values["growth"] if halves else 1.0
            layers += _block(axes, n_in, int(width), values["kernel"], 2 if halves else 1, values["block"])
            n_in = int(width)
        return nn.Sequential(*layers, Head(n_in, n_outputs, values["dropout"]))

    def canonical(self, values: Knobs) -> dict[str, object]:
        """Returns the values; without halvings there is no growth."""
        return {**values, **({} if values["halvings"] else {"growth": 1.0})}

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if len(input_shape) not in (2, 3):
            return f"{self.name} takes signals (channels, time) or images, not inputs of shape {input_shape}"
        if values["halvings"] > values["depth"]:
            return f"halvings={values['halvings']} are more than the blocks, depth={values['depth']}"
        return too_small(input_shape, (values["stem_stride"], *[2] * values["halvings"]))


def _block(axes: int, n_in: int, n_out: int, kernel: int, stride: int, kind: str) -> list[nn.Module]:
    if kind == "full":
        return [conv_bn(axes, n_in, n_out, kernel, stride)]
    return [conv_bn(axes, n_in, n_in, kernel, stride, groups=n_in), conv_bn(axes, n_in, n_out, 1)]

"""FunnelNet: heart sounds by their scalogram, through a funnel of convolutions (Jobayer et al. 2024, arXiv 2405.09570)."""

from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from spaces.architectures.blocks import NORM, Head, conv_bn, too_small
from spaces.architectures.family import Family, Knobs, Shape
from spaces.architectures.spectra import FixedFilters, wavelet_filters
from spaces.knob_spec import KnobSpec

_SHORTEST = {"ricker": 1.0, "morlet": 2.0}  # scales in samples, below half the sampling rate
_LONGEST = 1 / 8  # of the signal's length
_STRIDES = (2, 2)  # of the squeezing convolutions


class FunnelNet(Family):
    """A continuous wavelet transform, convolutions that squeeze it, a bottleneck, one that expands it, and a head.

    Inputs are signals `(samples,)` or `(channels, samples)`. The transform is a fixed convolution, for every runtime; it is
    to stay float: `quantize.keep_float=[front_end.*]`.
    """

    name: ClassVar[str] = "funnelnet"
    knobs = (
        KnobSpec("wavelet", "morlet", "ricker: real; morlet: complex, of which the magnitude is taken", tuple(_SHORTEST)),
        KnobSpec("scales", 32, "number of the wavelet's widths, at equal ratios", low=16, high=64),
        KnobSpec("hop", 1, "samples from one column of the scalogram to the next", (1, 2, 4)),
        KnobSpec("width", 16, "channels of the first convolution; the second doubles them", low=4, high=128),
        KnobSpec("bottleneck_ratio", 0.5, "channels of the bottleneck per channel before it", low=0.25, high=1.0),
        KnobSpec("depth", 3, "convolutions of the bottleneck", low=1, high=8),
        KnobSpec("kernel", 3, "kernel size of the bottleneck", (3, 5)),
        KnobSpec("block", "separable", "separable: depthwise and pointwise; full: one convolution", ("separable", "full")),
        KnobSpec("expand_width", 32, "channels of the convolution that expands", low=4, high=128),
        KnobSpec("dropout", 0.0, "share of the features that is dropped in training", low=0.0, high=0.8),
    )  # fmt: skip

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        n_in = 1 if len(input_shape) == 1 else input_shape[0]
        squeezed = 2 * values["width"]
        squeeze = (
            conv_bn(2, n_in, values["width"], 3, _STRIDES[0]),
            conv_bn(2, values["width"], squeezed, 3, _STRIDES[1]),
        )
        narrow = max(1, round(squeezed * values["bottleneck_ratio"]))
        widths = (squeezed, *[narrow] * values["depth"])
        bottleneck = [bottleneck_layer(n, narrow, values["kernel"], values["block"]) for n in widths[:-1]]
        head = Head(values["expand_width"], n_outputs, values["dropout"])
        layers = nn.Sequential(*squeeze, *bottleneck, _expansion(narrow, values["expand_width"]))
        return _Network(self._front_end(values, input_shape[-1]), layers, head)

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if len(input_shape) not in (1, 2):
            return f"{self.name} takes signals (samples,) or (channels, samples), not inputs of shape {input_shape}"
        if input_shape[-1] * _LONGEST <= _SHORTEST[values["wavelet"]]:
            return f"{input_shape[-1]} samples are too few for wavelet={values['wavelet']}"
        return too_small((1, values["scales"], input_shape[-1] // values["hop"]), _STRIDES)

    def _front_end(self, values: Knobs, n_samples: int) -> FixedFilters:
        scales = np.geomspace(_SHORTEST[values["wavelet"]], n_samples * _LONGEST, values["scales"])
        filters = wavelet_filters(values["wavelet"], scales)
        return FixedFilters(filters, values["hop"], filters.shape[1] // 2)


class _Network(nn.Module):
    """Signals -> logits `(n, n_outputs)`."""

    def __init__(self, front_end: nn.Module, layers: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.front_end, self.layers, self.head = front_end, layers, head

    def forward(self, x: Tensor) -> Tensor:
        """`(n, samples)` or `(n, channels, samples)` -> logits."""
        signals = x.unsqueeze(1) if x.ndim == 2 else x
        scalogram = self.front_end(signals.flatten(0, 1))
        images = scalogram.unflatten(0, (-1, signals.shape[1]))
        return self.head(self.layers(images))  # type: ignore[no-any-return]


def bottleneck_layer(n_in: int, n_out: int, kernel: int, kind: str) -> nn.Sequential:
    """Returns a convolution; a separable one has `1 / n_out + 1 / kernel**2` of the multiplications of a full one.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        kernel: Kernel size.
        kind: `separable` or `full`.
    """
    if kind == "full":
        return nn.Sequential(conv_bn(2, n_in, n_out, kernel))
    return nn.Sequential(conv_bn(2, n_in, n_in, kernel, groups=n_in), conv_bn(2, n_in, n_out, 1))


def _expansion(n_in: int, n_out: int) -> nn.Sequential:
    """Returns a convolution that doubles the resolution."""
    return nn.Sequential(nn.ConvTranspose2d(n_in, n_out, 2, 2, bias=False), NORM[2](n_out), nn.ReLU())

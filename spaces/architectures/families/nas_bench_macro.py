"""NAS-Bench-Macro's space (Su et al. 2021, arXiv 2103.11922, section 4): eight layers, each one of three.

Costs of all 6,561 networks, and their accuracies on CIFAR-10, are public: github.com/xiusu/NAS-Bench-Macro.
"""

from typing import ClassVar

from torch import nn

from spaces.architectures.blocks import (
    RESOLUTION,
    Head,
    check_positive,
    conv_bn,
    images_only,
    resized,
    resized_to,
    too_small,
)
from spaces.architectures.family import Family, Knobs, Shape
from spaces.knob_spec import KnobSpec
from spaces.models.zoo.mobilenet_v2 import InvertedResidual

CHOICES = ("identity", "mb3_k3", "mb6_k5")
STAGES = ((1, 2), (3, 4, 5), (6, 7, 8))  # the first layer of each halves the size and doubles the channels
_BLOCKS = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}  # expansion, kernel


class NASBenchMacro(Family):
    """A convolution, three stages of two, three and three layers, a wide 1x1 convolution, the mean, and a linear layer.

    An identity that changes the shape is a 1x1 convolution; others are left out. So two networks are the same whose stages
    differ only in where their identities are, behind their first layers: the canonical one has them last.

    Args:
        stem: Channels of the first convolution; 32 in the benchmark.
        last: Channels of the last convolution; 1,280 in the benchmark.

    Raises:
        ConfigError: One of them is not positive.
    """

    name: ClassVar[str] = "nas_bench_macro"
    knobs = (
        *(KnobSpec(f"block{at}", "mb3_k3", f"layer {at}", CHOICES) for at in range(1, 9)),
        RESOLUTION,
    )

    def __init__(self, stem: int = 32, last: int = 1280) -> None:
        check_positive(stem=stem, last=last)
        self.stem, self.last = stem, last

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        n_in = self.stem
        layers: list[nn.Module] = [conv_bn(2, input_shape[0], n_in, 3)]
        for first, *others in STAGES:
            layers.append(_layer(values[f"block{first}"], n_in, 2 * n_in))
            n_in *= 2
            kinds = (values[f"block{at}"] for at in others)
            layers += [_layer(kind, n_in, n_in) for kind in kinds if kind != "identity"]
        network = nn.Sequential(*layers, conv_bn(2, n_in, self.last, 1), Head(self.last, n_outputs))
        return resized(network, input_shape, values["resolution"])

    def canonical(self, values: Knobs) -> dict[str, object]:
        """Returns the values with the identities last among the layers of a stage that keep the shape."""
        found = dict(values)
        for _, *others in STAGES:
            kinds = sorted((values[f"block{at}"] for at in others), key=lambda kind: kind == "identity")
            found |= {f"block{at}": kind for at, kind in zip(others, kinds, strict=True)}
        return found

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        return images_only(self.name, input_shape) or too_small(
            resized_to(input_shape, values["resolution"]), [2] * len(STAGES)
        )


def _layer(kind: str, n_in: int, n_out: int) -> nn.Module:
    stride = 1 if n_in == n_out else 2
    if kind == "identity":
        return conv_bn(2, n_in, n_out, 1, stride, activation="none")
    expansion, kernel = _BLOCKS[kind]
    return InvertedResidual(n_in, n_out, stride, expansion, kernel, nn.ReLU)

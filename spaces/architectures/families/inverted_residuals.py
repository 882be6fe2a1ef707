"""Inverted residuals with linear bottlenecks, and the options that later networks added to them.

Sandler et al. 2018 (MobileNetV2, arXiv 1801.04381); Howard et al. 2019 (MobileNetV3, arXiv 1905.02244): squeeze and
excitation with a hard sigmoid, hardswish.
"""

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import ClassVar

from torch import nn

from spaces.architectures.blocks import (
    ACTIVATIONS,
    RESOLUTION,
    SqueezeExcite,
    check_positive,
    images_only,
    resized,
    resized_to,
    round_channels,
    too_small,
)
from spaces.architectures.family import Family, Knobs, Shape
from spaces.errors import ConfigError
from spaces.knob_spec import KnobSpec
from spaces.models.zoo.mobilenet_v2 import STAGES, InvertedResidual, MobileNetV2


class InvertedResiduals(Family):
    """MobileNetV2 by default; with `se` and hardswish its blocks are MobileNetV3's.

    Args:
        stages: For every stage `(expansion, channels, repetitions, stride of the first)`; an expansion of 1 stays 1, the
            others are the knob's.
        stem: Channels of the first convolution.
        last: Channels of the last convolution; more at widths above 1.

    Raises:
        ConfigError: A stage does not have four positive whole numbers, or another number is not positive.
    """

    name: ClassVar[str] = "inverted_residuals"
    knobs = (
        KnobSpec("width", 1.0, "factor on all channels, which are multiples of 8", low=0.1, high=4.0),
        KnobSpec("depth", 1.0, "factor on the number of blocks of a stage, rounded up", low=0.1, high=4.0),
        KnobSpec("kernel", 3, "kernel size of the depthwise convolutions", (3, 5, 7)),
        KnobSpec("expansion", 6, "channels of the depthwise convolutions, of the block's inputs", low=2, high=10),
        KnobSpec("se", False, "squeeze and excitation in every block", (False, True)),
        KnobSpec("activation", "relu6", "activation", ("relu", "relu6", "hardswish", "silu")),
        KnobSpec("halvings", 5, "layers with stride 2, the last of those that have it: 2 or 3 for small images", low=0, high=5),
        RESOLUTION,
    )  # fmt: skip

    def __init__(self, stages: Sequence[Sequence[int]] = STAGES, stem: int = 32, last: int = 1280) -> None:
        check_positive(stem=stem, last=last)
        for stage in stages:
            if len(stage) != 4 or not all(isinstance(n, int) and n > 0 for n in stage):
                raise ConfigError(
                    f"model.family.stages: {list(stage)} is not [expansion, channels, repetitions, stride]"
                )
        self.stages, self.stem, self.last = tuple(map(tuple, stages)), stem, last

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        stem_stride, *strides = self._strides(values["halvings"])
        stages = [
            (1 if expansion == 1 else values["expansion"], channels, ceil(n * values["depth"]), stride)
            for (expansion, channels, n, _), stride in zip(self.stages, strides, strict=True)
        ]
        activation = ACTIVATIONS[values["activation"]]
        scale = _squeeze_excite if values["se"] else None
        block = partial(InvertedResidual, kernel=values["kernel"], activation=activation, scale=scale)
        stem = (self.stem, stem_stride)
        network = MobileNetV2(
            values["width"], n_outputs, input_shape[0], stages, block, activation, stem, self.last
        )
        return resized(network, input_shape, values["resolution"])

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        return images_only(self.name, input_shape) or too_small(
            resized_to(input_shape, values["resolution"]), self._strides(values["halvings"])
        )

    def _strides(self, halvings: int) -> list[int]:
        """Returns the strides of the stem and of every stage; all but the last of those above 1 become 1."""
        strides = [2, *(stride for *_, stride in self.stages)]
        kept = [at for at, stride in enumerate(strides) if stride > 1][-halvings:] if halvings else []
        return [stride if at in kept else 1 for at, stride in enumerate(strides)]


def _squeeze_excite(channels: int) -> nn.Module:
    return SqueezeExcite(2, channels, round_channels(channels / 4), "hardsigmoid")

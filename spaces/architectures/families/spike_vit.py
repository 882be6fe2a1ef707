"""A quantized spike-driven transformer: QSD-Transformer's block (Qiu et al. 2025, arXiv 2501.13492)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.architectures.blocks import conv_bn
from spaces.architectures.family import Family, Knobs, Shape
from spaces.architectures.spiking import Spike, SpikeAttention
from spaces.knob_spec import KnobSpec


class SpikeViT(Family):
    """Patches, then blocks of attention and feed-forward layers whose inputs are spikes: weights are added, never multiplied.

    Inputs are images. Neurons are trained as multi-level ones; on neuromorphic hardware a value is that many binary spikes.
    The exported file computes with the values, which is the same. Widths of the weights are the quantize stage's matter.
    """

    name: ClassVar[str] = "spike_vit"
    knobs = (
        KnobSpec("patch", 4, "height and width of a patch, pixels", (2, 4, 8, 16)),
        KnobSpec("width", 64, "values of a token", low=8, high=512),
        KnobSpec("depth", 2, "number of blocks", low=1, high=12),
        KnobSpec("heads", 4, "heads of the attention; they divide the width", (1, 2, 4, 8)),
        KnobSpec("mlp_ratio", 2, "hidden values of the feed-forward layers per value", (1, 2, 4)),
        KnobSpec("levels", 4, "most spikes of a value; 1 is a binary neuron", (1, 2, 4, 8)),
        KnobSpec("attention_scale", 0.125, "factor on the attention's outputs", (0.125, 0.25)),
    )

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        patch, width = values["patch"], values["width"]
        tokens = (input_shape[1] // patch) * (input_shape[2] // patch)
        blocks: list[nn.Module] = [
            part
            for _ in range(values["depth"])
            for part in (
                _Attention(width, values["heads"], values["levels"], values["attention_scale"]),
                _Mlp(width, width * values["mlp_ratio"], values["levels"]),
            )
        ]
        embed = nn.Sequential(
            nn.Conv2d(input_shape[0], width, patch, patch, bias=False), nn.BatchNorm2d(width)
        )
        return _Network(embed, tokens, width, blocks, nn.Linear(width, n_outputs))

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if len(input_shape) != 3:
            return f"{self.name} takes images (channels, height, width), not inputs of shape {input_shape}"
        if values["patch"] > min(input_shape[1:]):
            return f"patch={values['patch']} is larger than images of {input_shape[1]}x{input_shape[2]}"
        if values["width"] % values["heads"]:
            return f"heads={values['heads']} do not divide width={values['width']}"
        return None


class _Network(nn.Module):
    """Images `(n, channels, height, width)` -> logits `(n, n_outputs)`. Pixels that fill no whole patch are left out."""

    def __init__(
        self, embed: nn.Module, tokens: int, width: int, blocks: list[nn.Module], head: nn.Module
    ) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = embed, nn.Sequential(*blocks), head
        self.positions = nn.Parameter(0.02 * torch.randn(1, width, tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = self.embed(x).flatten(2) + self.positions
        return self.head(self.blocks(x).mean(2))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Spikes become queries, keys and values, which are spikes, too; their attention's spikes are projected; a shortcut."""

    def __init__(self, width: int, heads: int, levels: int, scale: float) -> None:
        super().__init__()
        self.spike = Spike(levels)
        self.queries, self.keys, self.values = (
            nn.Sequential(_linear(width, width), Spike(levels)) for _ in range(3)
        )
        self.attention, self.fire = SpikeAttention(heads, scale), Spike(levels)
        self.project = _linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, tokens)` -> the same shape."""
        spikes = self.spike(x)
        mixed = self.attention(self.queries(spikes), self.keys(spikes), self.values(spikes))
        return x + self.project(self.fire(mixed))  # type: ignore[no-any-return]


class _Mlp(nn.Module):
    """Two layers, each after a neuron, and a shortcut."""

    def __init__(self, width: int, hidden: int, levels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Spike(levels), _linear(width, hidden), Spike(levels), _linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(n, width, tokens)` -> the same shape."""
        return x + self.layers(x)  # type: ignore[no-any-return]


def _linear(n_in: int, n_out: int) -> nn.Sequential:
    """Returns a linear layer for every token, with BatchNorm, which is folded into it at export."""
    return conv_bn(1, n_in, n_out, 1, activation="none")

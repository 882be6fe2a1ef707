"""FEMBA: Mamba in both directions of time, for signals of many channels (Tegon et al. 2025, arXiv 2502.06438)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from spaces.architectures.family import Family, Knobs, Shape
from spaces.architectures.selective_scan import Mamba
from spaces.knob_spec import KnobSpec

DIRECTIONS = ("forward", "add", "multiply")
_HEAD_WIDTH = 256


class FEMBA(Family):
    """Patches over channels and time, Mamba blocks over time in one or both directions, and a head.

    Inputs are signals `(channels, time)`; the network is for signals of this length. The defaults are the published tiny
    network; its parameters have the published names.
    """

    name: ClassVar[str] = "femba"
    knobs = (
        KnobSpec("patch_channels", 2, "channels of a patch", low=1, high=64),
        KnobSpec("patch_time", 16, "samples of a patch", low=1, high=256),
        KnobSpec("embed_dim", 35, "values of a patch's vector", low=2, high=128),
        KnobSpec("depth", 2, "number of Mamba blocks", low=1, high=20),
        KnobSpec("expand", 4, "channels of the recurrence per value of a token", (1, 2, 4)),
        KnobSpec("d_state", 16, "states of each channel of the recurrence", (4, 8, 16)),
        KnobSpec(
            "directions", "add", "forward in time alone, or both directions, added or multiplied", DIRECTIONS
        ),
        KnobSpec("head", "mamba", "linear, or a Mamba block of width 256 before it", ("linear", "mamba")),
    )

    def build(self, values: Knobs, input_shape: Shape, n_outputs: int) -> nn.Module:
        """Returns the network."""
        grid = (input_shape[0] // values["patch_channels"], input_shape[1] // values["patch_time"])
        width = grid[0] * values["embed_dim"]
        layer = {"expand": values["expand"], "d_state": values["d_state"]}
        blocks = [Directions(width, values["directions"], **layer) for _ in range(values["depth"])]
        head = MambaHead(width, n_outputs) if values["head"] == "mamba" else _LinearHead(width, n_outputs)
        patch = (values["patch_channels"], values["patch_time"])
        return _Network(_Patches(patch, values["embed_dim"]), grid[1], width, blocks, head)

    def broken(self, values: Knobs, input_shape: Shape) -> str | None:
        """Returns why these values build no valid network."""
        if len(input_shape) != 2:
            return f"{self.name} takes signals (channels, time), not inputs of shape {input_shape}"
        for name, size, what in zip(
            ("patch_channels", "patch_time"), input_shape, ("channels", "samples"), strict=True
        ):
            if values[name] > size:
                return f"{name}={values[name]} is more than the {size} {what} of an input"
        return None


class _Network(nn.Module):
    """Signals `(n, channels, time)` -> logits `(n, n_outputs)`."""

    def __init__(
        self, patches: nn.Module, n_tokens: int, width: int, blocks: list["Directions"], head: nn.Module
    ) -> None:
        super().__init__()
        self.patch_embed = patches
        self.pos_embed = nn.Parameter(torch.zeros(1, n_tokens, width))
        self.mamba_blocks = nn.ModuleList(blocks)
        self.norm_layers = nn.ModuleList(nn.LayerNorm(width) for _ in blocks)
        self.classifier = head

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = self.patch_embed(x) + self.pos_embed
        for block, norm in zip(self.mamba_blocks, self.norm_layers, strict=True):
            x = norm(x + block(x))
        return self.classifier(x)  # type: ignore[no-any-return]


class _Patches(nn.Module):
    """Signals -> a token for every step of time: the vectors of all patches of that step, `(n, steps, width)`.

    Channels and samples that fill no whole patch are left out.
    """

    def __init__(self, patch: tuple[int, int], embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, embed_dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the tokens."""
        return self.proj(x.unsqueeze(1)).flatten(1, 2).transpose(1, 2)  # type: ignore[no-any-return]


class Directions(nn.Module):
    """Mamba forward in time, and where asked for another one backward.

    Args:
        width: Values of a token.
        directions: One of `DIRECTIONS`.
        **layer: Arguments of `Mamba`.
    """

    def __init__(self, width: int, directions: str, **layer: int) -> None:
        super().__init__()
        self.directions = directions
        self.mamba_fwd = Mamba(width, **layer)
        self.mamba_rev = None if directions == "forward" else Mamba(width, **layer)

    def extra_repr(self) -> str:
        """Returns how the directions are put together."""
        return self.directions

    def forward(self, x: Tensor) -> Tensor:
        """`(n, time, width)` -> the same shape."""
        ahead: Tensor = self.mamba_fwd(x)
        if self.mamba_rev is None:
            return ahead
        back: Tensor = self.mamba_rev(x.flip(1)).flip(1)
        return ahead + back if self.directions == "add" else ahead * back


class MambaHead(nn.Module):
    """A linear layer, GELU, Mamba, the mean over time and a linear layer: `(n, time, width)` -> `(n, n_outputs)`."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _HEAD_WIDTH)
        self.mamba_1 = Mamba(_HEAD_WIDTH)
        self.fc3 = nn.Linear(_HEAD_WIDTH, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.fc3(self.mamba_1(nn.functional.gelu(self.fc1(x))).mean(1))  # type: ignore[no-any-return]


class _LinearHead(nn.Module):
    """The mean over time and a linear layer: `(n, time, width)` -> `(n, n_outputs)`."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.fc3 = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return self.fc3(x.mean(1))  # type: ignore[no-any-return]

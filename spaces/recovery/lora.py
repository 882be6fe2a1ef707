"""LoRA (Hu et al. 2021, arXiv 2106.09685): low-rank changes of linear layers are trained, then merged into the weights."""

import copy
from math import sqrt
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spaces.errors import StageError

SCALE = 2.0  # alpha / rank: a rate that suits one rank suits the others, too


class LowRank(nn.Module):
    """Maps a weight `W` to `W + SCALE * B A`; B starts at zero, so that nothing changes at first (section 4.1).

    Args:
        weight: `(n_out, n_in)`, or `(n_out, n_in, 1, 1)` of a 1x1 convolution.
        rank: Rows of A, columns of B.
        generator: Draws A.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        n_out, n_in = weight.shape[:2]
        self.a = nn.Parameter(torch.randn(rank, n_in, generator=generator) / sqrt(n_in))
        self.b = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the changed weight, of the same shape."""
        return weight + SCALE * (self.b @ self.a).view(weight.shape)


def with_low_rank(module: nn.Module, rank: int, seed: int) -> nn.Module:
    """Returns a copy in which only low-rank changes of linear layers and 1x1 convolutions can be trained.

    Args:
        module: The network; left as it is.
        rank: Of the changes, at least 1; a layer with fewer inputs or outputs gets as many as it has.
        seed: Draws the factors.

    Raises:
        StageError: There is no such layer, or none that is as large as the rank.
    """
    check_rank(module, rank)
    changed = copy.deepcopy(module).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers(changed):
        low_rank = LowRank(layer.weight, min(rank, *layer.weight.shape[:2]), generator)
        parametrize.register_parametrization(layer, "weight", low_rank)
    return changed


def check_rank(module: nn.Module, rank: int) -> None:
    """Checks that a layer is as large as the rank; rank 0, no LoRA, always fits.

    Raises:
        StageError: None is.
    """
    sizes = [min(layer.weight.shape[:2]) for layer in _layers(module)]
    if rank > max(sizes, default=0):
        found = f"the largest has {max(sizes)}" if sizes else f"{type(module).__name__} has none"
        raise StageError(
            f"recover.lora_rank={rank} needs a linear layer or 1x1 convolution of at least {rank} inputs and outputs, but "
            f"{found}; lora_rank=0 trains all weights"
        )


def merged(module: nn.Module, original: nn.Module) -> nn.Module:
    """Returns a network of the original's structure, with the trained changes merged into its weights.

    Args:
        module: What `with_low_rank` made of `original`, trained; left as it is.
        original: The network before.
    """
    result = copy.deepcopy(original)
    state = {name: value for name, value in module.state_dict().items() if name in result.state_dict()}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            state[f"{name}.weight"] = part.weight
    result.load_state_dict(state)
    return result


def _layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [part for part in module.modules() if _is_linear(part)]


def _is_linear(part: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    if isinstance(part, nn.Conv2d):
        return part.kernel_size == (1, 1) and part.groups == 1
    return isinstance(part, nn.Linear)

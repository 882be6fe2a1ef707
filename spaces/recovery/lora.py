"""LoRA (Hu et al. 2021, arXiv 2106.09685): trains low-rank updates of linear layers, then merges them."""

import copy
from math import sqrt
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spaces.errors import StageError

SCALE = 2.0  # alpha / rank; fixed, so that one learning rate suits all ranks


class LowRank(nn.Module):
    """Maps a weight `W` to `W + SCALE * B A`; B is initially zero (section 4.1).

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
        """Returns the updated weight, of the same shape."""
        return weight + SCALE * (self.b @ self.a).view(weight.shape)


def with_low_rank(module: nn.Module, rank: int, seed: int) -> nn.Module:
    """Returns a copy in which only low-rank updates of linear layers and 1x1 convolutions can be trained, of those that are not frozen.

    Args:
        module: The network; left as it is.
        rank: Rank of the updates, at least 1; in a layer with fewer inputs or outputs, their number is the
            rank.
        seed: Seed of the initial factors.

    Raises:
        StageError: There is no such layer, or none with `rank` inputs and outputs.
    """
    check_rank(module, rank)
    changed = copy.deepcopy(module)
    layers = _layers(changed)
    changed.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        low_rank = LowRank(layer.weight, min(rank, *layer.weight.shape[:2]), generator)
        parametrize.register_parametrization(layer, "weight", low_rank)
    return changed


def check_rank(module: nn.Module, rank: int) -> None:
    """Checks that some layer has at least `rank` inputs and outputs; rank 0 (no LoRA) always passes.

    Raises:
        StageError: No layer has.
    """
    sizes = [min(layer.weight.shape[:2]) for layer in _layers(module)]
    if rank > max(sizes, default=0):
        largest = f"the largest has {max(sizes)}" if sizes else f"{type(module).__name__} has none"
        raise StageError(
            f"recover.lora_rank={rank} needs a linear layer or 1x1 convolution of at least {rank} inputs and outputs, but "
            f"{largest}; lora_rank=0 trains all weights"
        )


def merged(module: nn.Module, original: nn.Module) -> nn.Module:
    """Returns a network of the original's structure, with the trained updates merged into its weights.

    Args:
        module: The result of `with_low_rank` for `original`, after training; left as it is.
        original: The network without LoRA, or without ternary experts.
    """
    result = copy.deepcopy(original)
    state = {name: value for name, value in module.state_dict().items() if name in result.state_dict()}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            state[f"{name}.weight"] = part.weight
    result.load_state_dict(state)
    return result


def _layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [part for part in module.modules() if _is_linear(part) and part.weight.requires_grad]


def _is_linear(part: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    if isinstance(part, nn.Conv2d):
        return part.kernel_size == (1, 1) and part.groups == 1
    return isinstance(part, nn.Linear)

"""Routed experts of ternary weights, trained with a straight-through estimator (MoTE, arXiv 2506.14435, section 3).

The rule is that of `spaces.quantization.formats.ternary`: `g = mean|W|`, `W_t = g * clip(round(W / g), -1, 1)`. Activations stay float: the quantize
stage rounds them.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spaces.models.torch.experts import mixtures
from spaces.quantization.formats.ternary import Ternary

FORMAT = Ternary(scale_dtype="float32")
_LEAST = 1e-30  # of a divisor: the weights may all be zero


class _StraightThrough(torch.autograd.Function):
    """Rounds in the forward pass; the gradient passes as if it did not."""

    @staticmethod
    def forward(context: Any, weight: Tensor) -> Tensor:
        del context
        scale = weight.abs().mean()
        return scale * (weight / scale.clamp(min=_LEAST)).round().clamp(-1, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        del context
        return gradients[0]


class TernaryWeight(nn.Module):
    """Maps a weight to its ternary values."""

    def forward(self, weight: Tensor) -> Tensor:
        """Returns -g, 0 or g for each value of a weight."""
        rounded: Tensor = _StraightThrough.apply(weight)  # type: ignore[no-untyped-call]
        return rounded


def with_ternary_experts(module: nn.Module) -> nn.Module:
    """Returns a copy of a network whose routed experts compute with ternary weights and train the float ones behind them."""
    changed = copy.deepcopy(module)
    for layer in _layers(changed):
        parametrize.register_parametrization(layer, "weight", TernaryWeight())
    return changed


def ternarized(module: nn.Module, original: nn.Module) -> nn.Module:
    """Returns a network of the original's structure, with the ternary weights that the format stores.

    Args:
        module: The result of `with_ternary_experts` for `original`, after training; changed.
        original: The network that it was made of.
    """
    for layer in _layers(module):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    result = copy.deepcopy(original)
    result.load_state_dict(module.state_dict())
    for layer in _layers(result):
        packed = FORMAT.encode(layer.weight.detach().numpy())
        layer.weight.data = torch.from_numpy(packed.values)
        layer.weight_format = FORMAT.name  # type: ignore[assignment]  # the exported file says so
    return result


def _layers(module: nn.Module) -> Iterator[nn.Linear]:
    for mixture in mixtures(module).values():
        yield from (part for part in mixture.experts.modules() if isinstance(part, nn.Linear))

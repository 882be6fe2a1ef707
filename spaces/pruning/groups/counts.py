"""Counts the multiply-accumulates, parameters and bytes of a network."""

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from spaces.errors import StageError
from spaces.recovery.training.determinism import fixed_threads


@dataclass(frozen=True)
class Counts:
    """The cost of a layer or a network.

    Attributes:
        macs: Multiply-accumulates for one example, of convolutions and linear layers.
        parameters: Number of learned values; a BatchNorm's statistics do not count.
        weight_bytes: Bytes of the parameters.
    """

    macs: int = 0
    parameters: int = 0
    weight_bytes: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.macs + other.macs,
            self.parameters + other.parameters,
            self.weight_bytes + other.weight_bytes,
        )


def total(counts: Iterable[Counts]) -> Counts:
    """Returns the sum."""
    return sum(counts, Counts())


def layer_counts(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Counts]:
    """Returns the cost of each module with parameters of its own, by name of its first parameter.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: The network does not run on such an example.
    """
    uses = weight_uses(module, input_shape)
    counts = {}
    for name, part in module.named_modules():
        own = {k: p for k, p in part._parameters.items() if p is not None}
        if not own:
            continue
        sizes = {k: p.numel() for k, p in own.items()}
        prefix = f"{name}." if name else ""
        weight = f"{prefix}weight"
        macs = uses.get(weight, 0) * sizes.get("weight", 0)
        n_bytes = sum(p.numel() * p.element_size() for p in own.values())
        counts[prefix + next(iter(own))] = Counts(macs, sum(sizes.values()), n_bytes)
    return counts


def weight_uses(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Returns how often one example uses each element of a weight: once per output position or token.

    A layer's multiply-accumulates are the size of its weight times that number.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Returns:
        By name of the weight, for convolutions and linear layers; 0 for a layer that does not run.

    Raises:
        StageError: The network does not run on such an example.
    """
    module = copy.deepcopy(module).eval()
    uses: dict[str, int] = {}

    def count(name: str, part: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        uses[f"{name}.weight"] += _positions(part, arguments[0], output)

    with ExitStack() as stack, torch.no_grad(), fixed_threads(1):
        for name, part in module.named_modules():
            if isinstance(part, _ConvNd | nn.Linear):
                uses[f"{name}.weight"] = 0
                stack.callback(part.register_forward_hook(_hook(partial(count, name))).remove)
        run_on_zeros(module, input_shape)
    return uses


def run_on_zeros(module: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Runs a network on one example of zeros, so that its hooks are called.

    Raises:
        StageError: The network does not run on such an example.
    """
    try:
        module(torch.zeros(1, *input_shape))
    except Exception as error:  # user-defined networks raise anything
        raise StageError(
            f"{type(module).__name__} does not run on inputs {(1, *input_shape)}: {error}"
        ) from error


def _hook(function: Any) -> Any:
    def hook(part: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        function(part, arguments, output)

    return hook


def _positions(part: nn.Module, x: Tensor, y: Tensor) -> int:
    if isinstance(part, nn.Linear):
        return y.numel() // y.shape[-1]
    # A transposed convolution uses its weight once for every input position.
    return prod((x if isinstance(part, _ConvTransposeNd) else y).shape[2:])

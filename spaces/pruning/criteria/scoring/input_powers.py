"""Sums of squares of a layer's inputs over examples."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from spaces.pruning.groups.columns import Layer, column_powers
from spaces.pruning.groups.hooks import hooked


def input_powers(
    module: nn.Module, names: Sequence[str], inputs: Tensor, batch_size: int
) -> dict[str, Tensor]:
    """Returns, by name of the weight, the sum of squared inputs of each column of `columns.weight_matrix`.

    Args:
        module: The network, in eval mode.
        names: Weights of layers for which `columns.is_dense` holds.
        inputs: `(n, *input.shape)`.
        batch_size: Examples per forward pass.

    Returns:
        `(n_in * n_kernel,)` float64 per weight; zeros for a layer that the network does not run.
    """
    modules = dict(module.named_modules())
    layers = {name: cast(Layer, modules[name.removesuffix(".weight")]) for name in names}
    sums = {n: torch.zeros(layer.weight[0].numel(), dtype=torch.float64) for n, layer in layers.items()}

    def add(name: str, x: Tensor) -> None:
        sums[name] += column_powers(layers[name], x)

    with hooked(layers, before=add), torch.no_grad():
        for batch in torch.split(inputs, batch_size):
            module(batch)
    return sums

"""Sums of squares of a layer's inputs over examples."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from spaces.pruning.groups.columns import Layer, column_powers, is_dense
from spaces.pruning.groups.hooks import hooked
from spaces.pruning.groups.weights import RECURRENT

OF_INPUTS = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")


def takes_inputs(modules: Mapping[str, nn.Module], name: str) -> bool:
    """Whether a parameter multiplies with the inputs of its module.

    That is the weight of a linear layer or of a convolution without groups, or one of a recurrent module's first layer.

    Args:
        modules: All modules of the network.
        name: Name of the parameter.
    """
    owner, _, leaf = name.rpartition(".")
    part = modules[owner]
    return (leaf == "weight" and is_dense(part)) or (leaf in OF_INPUTS and isinstance(part, RECURRENT))


def input_powers(
    module: nn.Module, names: Sequence[str], inputs: Tensor, batch_size: int
) -> dict[str, Tensor]:
    """Returns, by name of the weight, the sum of squared inputs of each column of `columns.weight_matrix`.

    Args:
        module: The network, in eval mode.
        names: Weights for which `takes_inputs` holds.
        inputs: `(n, *input.shape)`.
        batch_size: Examples per forward pass.

    Returns:
        `(n_in * n_kernel,)` float64 per weight; zeros for a layer that the network does not run.
    """
    layers = {name: module.get_submodule(name.rpartition(".")[0]) for name in names}
    sums = {name: torch.zeros(module.get_parameter(name)[0].numel(), dtype=torch.float64) for name in names}

    def add(name: str, x: Tensor) -> None:
        layer = layers[name]
        sums[name] += column_powers(cast(Layer, layer), x) if is_dense(layer) else _feature_powers(x)

    with hooked(layers, before=add), torch.no_grad():
        for batch in torch.split(inputs, batch_size):
            module(batch)
    return sums


def _feature_powers(x: Tensor) -> Tensor:
    """Returns the sum of squares of each feature, `(n_in,)` float64; a packed sequence's, too."""
    return x.data.double().flatten(0, -2).square().sum(0)

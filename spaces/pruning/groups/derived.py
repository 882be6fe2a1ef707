"""Weights that are made of other parameters before each use: weight norm, which can be cut, and all others, which cannot."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from spaces.stages.module_identity import tensors_of

PARAMETRIZATIONS = ".parametrizations."


def layer_of(name: str) -> str:
    """Returns the name of the module that uses a parameter: that of its layer, if it makes the layer's weight."""
    head, found, _ = f".{name}".partition(PARAMETRIZATIONS)
    return head.removeprefix(".") if found else name.rpartition(".")[0]


def derivation(modules: Mapping[str, nn.Module], name: str) -> str | None:
    """Returns what makes a weight of this parameter, if that forbids to cut it; None for a plain parameter.

    Args:
        modules: All modules of the network.
        name: Name of the parameter or buffer.
    """
    part, leaf = modules[layer_of(name)], name.rpartition(".")[2]
    makers: list[object] = []
    plain: tuple[type, ...] = (_WeightNorm, WeightNorm)
    if PARAMETRIZATIONS in f".{name}":
        makers = list(modules[_list_of(name)].children())
    elif leaf in ("weight_orig", "weight_u", "weight_v", "weight_g"):
        makers = list(part._forward_pre_hooks.values())
    if isinstance(part, nn.RNNBase | nn.RNNCellBase):  # has several weights, any of which may be made
        makers += [hook for hook in part._forward_pre_hooks.values() if hasattr(hook, "compute_weight")]
        plain = ()
    return next((type(m).__name__.strip("_") for m in makers if not isinstance(m, plain)), None)


def weight_of(part: nn.Module) -> torch.Tensor:
    """Returns the parameter that has the shape of a layer's weight."""
    parts = dict(part.named_parameters(remove_duplicate=False))
    names = ("weight", "weight_v", "weight_orig", "parametrizations.weight.original1")
    return next(parts[name] for name in names if name in parts)


def _list_of(name: str) -> str:
    head, _, tail = f".{name}".partition(PARAMETRIZATIONS)
    return f"{head}{PARAMETRIZATIONS}{tail.partition('.')[0]}".removeprefix(".")


class WeightNormed(NamedTuple):
    """A layer whose weight is `g * v / |v|`, the norm being taken at each index of an axis.

    Attributes:
        g: Name of the factors.
        v: Name of the directions, of the weight's shape.
        dim: The axis.
    """

    g: str
    v: str
    dim: int


def weight_normed(modules: Mapping[str, nn.Module], layer: str) -> WeightNormed | None:
    """Returns how a layer's weight is made, if weight norm makes it.

    Args:
        modules: All modules of the network.
        layer: Name of the layer.
    """
    part, prefix = modules[layer], f"{layer}." if layer else ""
    if parametrize.is_parametrized(part, "weight"):
        (maker, *_) = modules[f"{prefix}parametrizations.weight"].children()
        names = [f"{prefix}parametrizations.weight.original{at}" for at in (0, 1)]
        return WeightNormed(names[0], names[1], int(maker.dim)) if isinstance(maker, _WeightNorm) else None
    for hook in part._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            return WeightNormed(f"{prefix}{hook.name}_g", f"{prefix}{hook.name}_v", hook.dim)
    return None


def keep_weight(normed: WeightNormed, state: Mapping[str, torch.Tensor], norms: torch.Tensor) -> None:
    """Scales the factors so that what is left of the weight keeps its values.

    Args:
        normed: The layer.
        state: The network's tensors, after a cut.
        norms: Norms of the directions before it, at the indices that are left.
    """
    with torch.no_grad():
        state[normed.g].mul_(torch.norm_except_dim(state[normed.v], 2, normed.dim) / norms)


def effective_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns a network's state, with the weights that weight norm makes in place of their directions."""
    state, modules = tensors_of(module), dict(module.named_modules())
    for layer in modules:
        if (normed := weight_normed(modules, layer)) is not None:
            v = state[normed.v]
            state[normed.v] = v * (state[normed.g] / torch.norm_except_dim(v, 2, normed.dim))
    return state

"""Where in a network a mask on channels can act so that it can be folded into parameters afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from spaces.pruning.groups.group import Group, Slice
from spaces.pruning.groups.hooks import hooked


@dataclass(frozen=True, eq=False)
class MaskPlace:
    """The output of a module, of which some channels are masked.

    Attributes:
        module: Its name.
        axis: Axis of the output that channels lie on.
        n_channels: Size of that axis.
        rows: By name of the group, which indices along the axis are each channel's, `(n_channels, k)`.
    """

    module: str
    axis: int
    n_channels: int
    rows: Mapping[str, NDArray[np.int64]]


def mask_places(module: nn.Module, groups: Sequence[Group], inputs: Tensor) -> list[MaskPlace]:
    """Returns the places where masks make channels zero, whatever the layers do.

    That is behind every BatchNorm, which would take a mask before it for a change of statistics and undo it, and behind
    every layer whose output goes anywhere but into a BatchNorm. Groups that cannot be masked completely, because
    something that yields their channels is no layer or has no parameter to fold a mask into, have no place.

    Args:
        module: The network, in eval mode.
        groups: The channels.
        inputs: Two examples or more, `(n, *input.shape)`.
    """
    modules = dict(module.named_modules())
    usable = [group for group in groups if _foldable(group, modules)]
    makers = {_owner(part): part.role for group in usable for part in group.slices if part.role != "in"}
    normed = _straight_into_norms(module, {name: modules[name] for name in makers}, makers, inputs)
    found: dict[str, dict[str, NDArray[np.int64]]] = {}
    for group in usable:
        for part in group.slices:
            if part.role != "in" and part.name.endswith(".weight") and _owner(part) not in normed:
                found.setdefault(_owner(part), {})[group.name] = part.rows
    return [_place(name, modules[name], rows) for name, rows in found.items()]


def _place(name: str, module: nn.Module, rows: Mapping[str, NDArray[np.int64]]) -> MaskPlace:
    if isinstance(module, nn.Linear):
        return MaskPlace(name, -1, module.out_features, rows)
    size = module.out_channels if isinstance(module, _ConvNd) else len(module.get_parameter("weight"))
    return MaskPlace(name, 1, size, rows)


def _foldable(group: Group, modules: Mapping[str, nn.Module]) -> bool:
    """Whether every module that makes the group's channels is a layer or a norm with a weight."""
    owners = {_owner(part) for part in group.slices if part.role != "in"}
    weighted = {_owner(part) for part in group.slices if part.name.endswith(".weight")}
    kinds = _ConvNd | nn.Linear | nn.modules.batchnorm._BatchNorm
    return owners <= weighted and all(isinstance(modules[name], kinds) for name in owners)


def _straight_into_norms(
    module: nn.Module, makers: Mapping[str, nn.Module], roles: Mapping[str, str], inputs: Tensor
) -> set[str]:
    """Returns the layers whose output goes into a norm, and nowhere else."""
    outputs: list[tuple[str, Tensor]] = []
    taken: list[Tensor] = []

    def before(name: str, x: Tensor) -> None:
        if roles[name] == "norm":
            taken.append(x)

    def after(name: str, y: Tensor) -> None:
        if roles[name] == "out":
            outputs.append((name, y))

    with hooked(makers, before, after), torch.no_grad(), _Uses() as uses:
        module(inputs)
    normed: set[str] = set()
    elsewhere: set[str] = set()
    for name, y in outputs:
        straight = any(y is x for x in taken) and uses.count(y) == 1
        (normed if straight else elsewhere).add(name)
    return normed - elsewhere


class _Uses(TorchFunctionMode):
    """Notes which tensors go into operations that yield tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Tensor] = []  # kept, so that no two have the same address

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(isinstance(part, Tensor) for part in tree_leaves(found)):
            self._seen += [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        return found

    def count(self, tensor: Tensor) -> int:
        """Returns how often a tensor was used."""
        return sum(part is tensor for part in self._seen)


def _owner(part: Slice) -> str:
    return part.name.rpartition(".")[0]

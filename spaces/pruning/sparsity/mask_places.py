"""Finds the module outputs at which masks on channels can be applied and later folded into parameters."""

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
        module: The module's name.
        axis: Axis of the output that channels lie on.
        n_channels: Size of that axis.
        rows: By name of the group, the indices along the axis that belong to each channel, `(n_channels, k)`.
    """

    module: str
    axis: int
    n_channels: int
    rows: Mapping[str, NDArray[np.int64]]


def mask_places(module: nn.Module, groups: Sequence[Group], inputs: Tensor) -> list[MaskPlace]:
    """Returns the module outputs where a mask of 0 makes a channel zero.

    These are the outputs of every BatchNorm (which would normalise away a mask on its input), and of every
    layer whose output goes anywhere but into a BatchNorm. A group has no place if some module that outputs
    its channels is not a layer or a BatchNorm, or has no weight to fold a mask into.

    Args:
        module: The network, in eval mode.
        groups: The channels.
        inputs: Two examples or more, `(n, *input.shape)`.
    """
    modules = dict(module.named_modules())
    usable = [group for group in groups if _foldable(group, modules)]
    makers = {_owner(part): part.role for group in usable for part in group.slices if part.role != "in"}
    normed = _straight_into_norms(module, {name: modules[name] for name in makers}, makers, inputs)
    rows: dict[str, dict[str, NDArray[np.int64]]] = {}
    for group in usable:
        for part in group.slices:
            if part.role != "in" and part.name.endswith(".weight") and _owner(part) not in normed:
                rows.setdefault(_owner(part), {})[group.name] = part.rows
    return [_place(name, modules[name], by_group) for name, by_group in rows.items()]


def _place(name: str, module: nn.Module, rows: Mapping[str, NDArray[np.int64]]) -> MaskPlace:
    if isinstance(module, nn.Linear):
        return MaskPlace(name, -1, module.out_features, rows)
    size = module.out_channels if isinstance(module, _ConvNd) else len(module.get_parameter("weight"))
    return MaskPlace(name, 1, size, rows)


def _foldable(group: Group, modules: Mapping[str, nn.Module]) -> bool:
    """Whether every module that outputs the group's channels is a layer or BatchNorm with a weight."""
    owners = {_owner(part) for part in group.slices if part.role != "in"}
    weighted = {_owner(part) for part in group.slices if part.name.endswith(".weight")}
    kinds = _ConvNd | nn.Linear | nn.modules.batchnorm._BatchNorm
    return owners <= weighted and all(isinstance(modules[name], kinds) for name in owners)


def _straight_into_norms(
    module: nn.Module, makers: Mapping[str, nn.Module], roles: Mapping[str, str], inputs: Tensor
) -> set[str]:
    """Returns the layers whose output goes into a BatchNorm, and nowhere else."""
    outputs: list[tuple[str, Tensor]] = []
    norm_inputs: list[Tensor] = []

    def before(name: str, x: Tensor) -> None:
        if roles[name] == "norm":
            norm_inputs.append(x)

    def after(name: str, y: Tensor) -> None:
        if roles[name] == "out":
            outputs.append((name, y))

    with hooked(makers, before, after), torch.no_grad(), _Uses() as uses:
        module(inputs)
    normed: set[str] = set()
    elsewhere: set[str] = set()
    for name, y in outputs:
        straight = any(y is x for x in norm_inputs) and uses.count(y) == 1
        (normed if straight else elsewhere).add(name)
    return normed - elsewhere


class _Uses(TorchFunctionMode):
    """Records the tensor arguments of operations that return tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._arguments: list[Tensor] = []  # kept alive, so that identities stay unique

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(part, Tensor) for part in tree_leaves(result)):
            self._arguments += [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        return result

    def count(self, tensor: Tensor) -> int:
        """Returns how often a tensor was an argument."""
        return sum(part is tensor for part in self._arguments)


def _owner(part: Slice) -> str:
    return part.name.rpartition(".")[0]

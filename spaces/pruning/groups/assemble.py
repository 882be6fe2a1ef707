"""Builds groups from dependent channels: which axes of which parameters shrink with them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from spaces.pruning.groups.dependencies import Dependencies, Dependent, End
from spaces.pruning.groups.group import Group, LeftAlone, PassThrough, Role, Slice

SINGLE = "there is a single channel, which has to stay"
OUTPUT = "the network's outputs consist of its channels"
Indices = NDArray[np.int64]


class _Axis(NamedTuple):
    """The axis of a parameter that an end's channels lie on.

    `modulo` is the number of channels per group, where a grouped convolution numbers them within each group;
    else None.
    """

    name: str
    axis: int
    role: Role
    modulo: int | None = None


def assemble(
    module: nn.Module, dependencies: Dependencies
) -> tuple[tuple[Group, ...], tuple[LeftAlone, ...]]:
    """Returns the groups, in the order of the state dict, and the layers with channels that are in no group.

    Args:
        module: The network.
        dependencies: Its dependencies.
    """
    builder = _Builder(module, dependencies)
    by_pattern: dict[object, list[Dependent]] = {}
    for dependent in dependencies.dependent:
        if layers := builder.layers(dependent):
            pattern = tuple(sorted((end, len(indices)) for end, indices in dependent.members.items()))
            by_pattern.setdefault((layers, pattern, builder.obstacle(dependent)), []).append(dependent)
    groups: list[Group] = []
    left: list[LeftAlone] = []
    for channels in sorted(by_pattern.values(), key=lambda channels: builder.sort_key(channels[0])):
        obstacle = builder.obstacle(channels[0])
        if obstacle is None and len(channels) == 1:
            obstacle = SINGLE
        if obstacle is None:
            groups.append(builder.group(channels, groups))
        else:
            left.append(LeftAlone(builder.layers(channels[0]), obstacle))
    return tuple(groups), tuple(left)


class _Builder:
    def __init__(self, module: nn.Module, dependencies: Dependencies) -> None:
        self._modules, self._dependencies = dict(module.named_modules()), dependencies
        self._order = {name: at for at, name in enumerate(self._modules)}
        self._shared = set(_shared(module))
        self._known = {name for name, _ in module.named_parameters(remove_duplicate=False)}

    def layers(self, dependent: Dependent) -> tuple[str, ...]:
        """Returns the weights of the layers that output the channels, in the network's order."""
        yielding = [
            end.name
            for end in dependent.members
            if end.side == "out" and isinstance(self._modules.get(end.name), _ConvNd | nn.Linear)
        ]
        return tuple(f"{name}.weight" for name in sorted(yielding, key=self._order.__getitem__))

    def sort_key(self, dependent: Dependent) -> tuple[int, int]:
        """Returns the positions of the first layer in the network and of the first channel in that layer."""
        first = self.layers(dependent)[0].removesuffix(".weight")
        return self._order[first], dependent.members[End(first, "out")][0]

    def obstacle(self, dependent: Dependent) -> str | None:
        """Returns why the channels cannot be cut; None if no reason is known."""
        if dependent.is_output:
            return OUTPUT
        for end, indices in dependent.members.items():
            part = self._modules.get(end.name)
            if part is not None and indices[-1] >= _width(part, end.side, indices[-1] + 1):
                return f"torch-pruning counts the channels of {end.name} wrongly"
            if part is not None and not _is_known(part) and _has_state(part):
                kind = type(part).__name__
                return f"the channels pass through {end.name}, and there is no rule to cut a {kind}"
            for axis in self._axes(end):
                if axis.name not in self._known and axis.role != "norm":
                    return f"{axis.name} is no plain parameter of its module"
                if axis.name in self._shared:
                    return f"{axis.name} is shared by several modules"
        return None

    def group(self, channels: list[Dependent], before: list[Group]) -> Group:
        """Returns the group of channels with equal dependencies; `before` are the groups so far."""
        layers = self.layers(channels[0])
        n_same_layer = sum(group.layers[0] == layers[0] for group in before)
        name = layers[0] + (f"#{n_same_layer + 1}" if n_same_layer else "")
        channels = sorted(channels, key=self.sort_key)
        slices = tuple(self._slices(channels))
        return Group(name, layers, len(channels), slices, tuple(self._pass_throughs(channels)))

    def _slices(self, channels: list[Dependent]) -> Iterator[Slice]:
        for end in sorted(channels[0].members, key=lambda e: (self._order.get(e.name, len(self._order)), e)):
            for axis in self._axes(end):
                rows = _rows([_counted(c.members[end], axis.modulo) for c in channels])
                yield Slice(axis.name, axis.axis, rows, axis.role)

    def _pass_throughs(self, channels: list[Dependent]) -> Iterator[PassThrough]:
        for name, widths in self._dependencies.pass_throughs.items():
            rows = [_rows([c.members.get(End(name, side), ()) for c in channels]) for side in ("in", "out")]
            if rows[0].size or rows[1].size:
                yield PassThrough(name, rows[0], rows[1], *widths)

    def _axes(self, end: End) -> list[_Axis]:
        part = self._modules.get(end.name)
        if part is None:
            axis = self._dependencies.parameter_axes[end.name]
            return [_Axis(end.name, axis, "other")] if end.side == "out" else []
        axes = _axes(part, end.side)
        tensors = dict.fromkeys((*part._parameters, *part._buffers))
        present = {n for n in tensors if getattr(part, n) is not None}
        return [
            _Axis(f"{end.name}.{a.name}", *a[1:])
            for a in axes
            if a.name in present or (a.name == "weight" and a.role != "norm")
        ]


def _axes(part: nn.Module, side: str) -> list[_Axis]:
    if isinstance(part, _ConvNd):
        return _conv_axes(part, side)
    if isinstance(part, nn.Linear):
        return [_Axis("weight", 1, "in")] if side == "in" else _output_axes(0)
    if side == "in":  # the slices are listed once, at the output
        return []
    if isinstance(part, _BatchNorm | _InstanceNorm):
        return [_Axis(n, 0, "norm") for n in ("weight", "bias", "running_mean", "running_var")]
    return [_Axis("weight", 0, "other")] if isinstance(part, nn.PReLU) and part.num_parameters > 1 else []


def _conv_axes(part: _ConvNd, side: str) -> list[_Axis]:
    """Weights are (out, in / groups, ...), those of transposed convolutions (in, out / groups, ...)."""
    transposed = isinstance(part, _ConvTransposeNd)
    if part.groups > 1 and part.groups == part.in_channels:  # depthwise: axis 0 holds inputs and outputs
        if transposed:
            return [_Axis("weight", 0, "out")] if side == "in" else [_Axis("bias", 0, "out")]
        return [] if side == "in" else _output_axes(0)
    modulo = part.in_channels // part.groups if part.groups > 1 and not transposed else None
    if side == "in":
        return [_Axis("weight", 0 if transposed else 1, "in", modulo)]
    if transposed and part.groups > 1:
        return [_Axis("weight", 1, "out", part.out_channels // part.groups), _Axis("bias", 0, "out")]
    return _output_axes(1 if transposed else 0)


def _output_axes(axis: int) -> list[_Axis]:
    return [_Axis("weight", axis, "out"), _Axis("bias", 0, "out")]


def _width(part: nn.Module, side: str, otherwise: int) -> int:
    """Returns how many channels a module has on a side, or `otherwise` if that is unknown."""
    if isinstance(part, _ConvNd):
        return part.in_channels if side == "in" else part.out_channels
    if isinstance(part, nn.Linear):
        return part.in_features if side == "in" else part.out_features
    return part.num_features if isinstance(part, _BatchNorm | _InstanceNorm) else otherwise


def _is_known(part: nn.Module) -> bool:
    return isinstance(part, _ConvNd | nn.Linear | _BatchNorm | _InstanceNorm | nn.PReLU)


def _has_state(part: nn.Module) -> bool:
    return any(True for _ in part.parameters()) or any(True for _ in part.buffers())


def _counted(indices: Iterable[int], modulo: int | None) -> list[int]:
    return sorted({i % modulo for i in indices}) if modulo is not None else list(indices)


def _rows(channels: list[list[int]] | list[tuple[int, ...]]) -> Indices:
    return np.array(channels, np.int64).reshape(len(channels), -1)


def _shared(module: nn.Module) -> Iterator[str]:
    """Yields the names of parameters that several modules share."""
    first_names: dict[int, str] = {}
    tensors: Mapping[str, nn.Parameter] = dict(module.named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        first = first_names.setdefault(id(tensor), name)
        if first != name:
            yield from (first, name)

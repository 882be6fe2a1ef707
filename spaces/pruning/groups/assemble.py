"""From coupled channels to groups: what shrinks in which parameter."""

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
    """What an end's channels are in a parameter; `modulo` where they are counted within a convolution's group."""

    name: str
    axis: int
    role: Role
    modulo: int | None = None


def assemble(module: nn.Module, found: Dependencies) -> tuple[tuple[Group, ...], tuple[LeftAlone, ...]]:
    """Returns the groups, in the order of the state dict, and the layers of which some channels are in no group.

    Args:
        module: The network.
        found: Its couplings.
    """
    builder = _Builder(module, found)
    alike: dict[object, list[Dependent]] = {}
    for dependent in found.dependent:
        if layers := builder.layers(dependent):
            pattern = tuple(sorted((end, len(some)) for end, some in dependent.members.items()))
            alike.setdefault((layers, pattern, builder.obstacle(dependent)), []).append(dependent)
    groups: list[Group] = []
    left: list[LeftAlone] = []
    for channels in sorted(alike.values(), key=lambda some: builder.place(some[0])):
        obstacle = builder.obstacle(channels[0])
        if obstacle is None and len(channels) == 1:
            obstacle = SINGLE
        if obstacle is None:
            groups.append(builder.group(channels, groups))
        else:
            left.append(LeftAlone(builder.layers(channels[0]), obstacle))
    return tuple(groups), tuple(left)


class _Builder:
    def __init__(self, module: nn.Module, found: Dependencies) -> None:
        self._modules, self._found = dict(module.named_modules()), found
        self._order = {name: at for at, name in enumerate(self._modules)}
        self._shared = set(_shared(module))
        self._known = {name for name, _ in module.named_parameters(remove_duplicate=False)}

    def layers(self, dependent: Dependent) -> tuple[str, ...]:
        """Returns the weights of the convolutions and linear layers that yield the channels, in order."""
        yielding = [
            end.name
            for end in dependent.members
            if end.side == "out" and isinstance(self._modules.get(end.name), _ConvNd | nn.Linear)
        ]
        return tuple(f"{name}.weight" for name in sorted(yielding, key=self._order.__getitem__))

    def place(self, dependent: Dependent) -> tuple[int, int]:
        """Returns what groups are sorted by: the first layer, and the first of its channels."""
        first = self.layers(dependent)[0].removesuffix(".weight")
        return self._order[first], dependent.members[End(first, "out")][0]

    def obstacle(self, dependent: Dependent) -> str | None:
        """Returns why the channels cannot be cut; None if nothing is known to be in the way."""
        if dependent.is_output:
            return OUTPUT
        for end, indices in dependent.members.items():
            part = self._modules.get(end.name)
            if part is not None and indices[-1] >= _width(part, end.side, indices[-1] + 1):
                return f"torch-pruning counts the channels of {end.name} wrongly"
            if part is not None and not _is_known(part) and _has_state(part):
                return f"they go through {end.name}, and no rule says how to cut a {type(part).__name__}"
            for axis in self._axes(end):
                if axis.name not in self._known and axis.role != "norm":
                    return f"{axis.name} is no plain parameter of its module"
                if axis.name in self._shared:
                    return f"{axis.name} is shared by several modules"
        return None

    def group(self, channels: list[Dependent], before: list[Group]) -> Group:
        """Returns the group of channels that are coupled in the same way."""
        layers = self.layers(channels[0])
        n_alike = sum(group.layers[0] == layers[0] for group in before)
        name = layers[0] + (f"#{n_alike + 1}" if n_alike else "")
        channels = sorted(channels, key=self.place)
        slices = tuple(self._slices(channels))
        return Group(name, layers, len(channels), slices, tuple(self._pass_throughs(channels)))

    def _slices(self, channels: list[Dependent]) -> Iterator[Slice]:
        for end in sorted(channels[0].members, key=lambda e: (self._order.get(e.name, len(self._order)), e)):
            for axis in self._axes(end):
                rows = _rows([_counted(c.members[end], axis.modulo) for c in channels])
                yield Slice(axis.name, axis.axis, rows, axis.role)

    def _pass_throughs(self, channels: list[Dependent]) -> Iterator[PassThrough]:
        for name, widths in self._found.pass_throughs.items():
            rows = [_rows([c.members.get(End(name, side), ()) for c in channels]) for side in ("in", "out")]
            if rows[0].size or rows[1].size:
                yield PassThrough(name, rows[0], rows[1], *widths)

    def _axes(self, end: End) -> list[_Axis]:
        part = self._modules.get(end.name)
        if part is None:
            axis = self._found.parameter_axes[end.name]
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
        return [_Axis("weight", 1, "in")] if side == "in" else _yielding(0)
    if side == "in":  # the same channels as at its output
        return []
    if isinstance(part, _BatchNorm | _InstanceNorm):
        return [_Axis(n, 0, "norm") for n in ("weight", "bias", "running_mean", "running_var")]
    return [_Axis("weight", 0, "other")] if isinstance(part, nn.PReLU) and part.num_parameters > 1 else []


def _conv_axes(part: _ConvNd, side: str) -> list[_Axis]:
    """A convolution's weight is (out, in / groups, ...), a transposed one's (in, out / groups, ...)."""
    transposed = isinstance(part, _ConvTransposeNd)
    if part.groups > 1 and part.groups == part.in_channels:  # inputs and outputs go together, along axis 0
        if transposed:
            return [_Axis("weight", 0, "out")] if side == "in" else [_Axis("bias", 0, "out")]
        return [] if side == "in" else _yielding(0)
    modulo = part.in_channels // part.groups if part.groups > 1 and not transposed else None
    if side == "in":
        return [_Axis("weight", 0 if transposed else 1, "in", modulo)]
    if transposed and part.groups > 1:
        return [_Axis("weight", 1, "out", part.out_channels // part.groups), _Axis("bias", 0, "out")]
    return _yielding(1 if transposed else 0)


def _yielding(axis: int) -> list[_Axis]:
    return [_Axis("weight", axis, "out"), _Axis("bias", 0, "out")]


def _width(part: nn.Module, side: str, otherwise: int) -> int:
    """Returns how many channels a module has on a side, or `otherwise` if it does not tell."""
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
    seen: dict[int, str] = {}
    tensors: Mapping[str, nn.Parameter] = dict(module.named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        first = seen.setdefault(id(tensor), name)
        if first != name:
            yield from (first, name)

"""Builds groups from dependent channels: which axes of which parameters shrink with them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from spaces.pruning.groups.derived import derivation, layer_of
from spaces.pruning.groups.group import Group, LeftAlone, PassThrough, ProductSlice, Role, Slice
from spaces.pruning.groups.weights import LAYERS, RECURRENT, is_projection, weight_name
from spaces.pruning.tracing.nodes import Component, End
from spaces.pruning.tracing.trace import Trace

SINGLE = "there is a single channel, which has to stay"
NO_LAYER = "it is no weight of a product, so its outputs stay"
WITHOUT_RULE = (nn.MultiheadAttention, nn.Bilinear)
Indices = NDArray[np.int64]


def assemble(module: nn.Module, traced: Trace) -> tuple[tuple[Group, ...], tuple[LeftAlone, ...]]:
    """Returns the groups, in the order of the state dict, and the layers with channels that are in no group.

    Args:
        module: The network.
        traced: The dependencies between its channels.
    """
    builder = _Builder(module, traced)
    by_pattern: dict[object, list[Component]] = {}
    for component in traced.components:
        if layers := builder.layers(component):
            pattern = tuple(sorted((end, len(indices)) for end, indices in component.members.items()))
            by_pattern.setdefault((layers, pattern, builder.obstacle(component)), []).append(component)
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
    others = (LeftAlone(names, builder.obstacle(c) or NO_LAYER) for c, names in builder.without_layer())
    return tuple(groups), tuple(dict.fromkeys((*left, *others)))


class _Builder:
    def __init__(self, module: nn.Module, traced: Trace) -> None:
        self._modules, self._traced = dict(module.named_modules()), traced
        self._order = {name: at for at, name in enumerate(self._modules)}
        self._shared = set(_shared(module))
        tensors = [*module.named_parameters(), *module.named_buffers()]
        self._position = {name: at for at, (name, _) in enumerate(tensors)}
        self._matrices = {name for name, tensor in tensors if tensor.ndim > 1}

    def layers(self, component: Component) -> tuple[str, ...]:
        """Returns the weights of the layers that output the channels, in the network's order; those that do not run do not."""
        ends = (
            end for end in component.members if self._traced.roles.get(end) == "out" and self._is_layer(end)
        )
        return tuple(
            dict.fromkeys(weight_name(self._modules, end.name) for end in sorted(ends, key=self._place))
        )

    def without_layer(self) -> Iterator[tuple[Component, tuple[str, ...]]]:
        """Yields the channels that no weight of a layer outputs, with the parameters that do."""
        for component in self._traced.components:
            if not self.layers(component):
                outs = (end.name for end in component.members if self._traced.roles.get(end) == "out")
                if names := {name for name in outs if not name.rpartition(".")[2].startswith("bias")}:
                    yield component, tuple(sorted(names, key=self._position.__getitem__))

    def sort_key(self, component: Component) -> tuple[int, int, int]:
        """Returns the positions of the first layer's module and weight in the network, and of the first channel in that layer."""
        first = self.layers(component)[0]
        ends = [e for e in component.members if self._role(e) == "out" and self._weight_of(e) == first]
        return *min(map(self._place, ends)), min(component.members[end][0] for end in ends)

    def obstacle(self, component: Component) -> str | None:
        """Returns why the channels cannot be cut; None if no reason is known."""
        parameters = [end for end in component.members if end.kind == "parameter"]
        for name in dict.fromkeys(end.name for end in parameters):
            owner = layer_of(name)
            part = self._modules[owner]
            if isinstance(part, WITHOUT_RULE):
                return f"the channels pass through {owner}, and there is no rule to cut modules of type {type(part).__name__}"
            if (made := derivation(self._modules, name)) is not None:
                weight = f"a weight of {owner}" if isinstance(part, RECURRENT) else f"{owner}.weight"
                return f"{weight} is no plain parameter of its module: it is made by {made}"
            if name in self._shared:
                return f"{name} is shared by several modules"
            if End("parameter", name, 1) in component.members and is_projection(part, name):
                return f"{owner} projects its hidden units (proj_size), and torch asks for more units than projections"
        return component.reason

    def group(self, channels: list[Component], before: list[Group]) -> Group:
        """Returns the group of channels with equal dependencies; `before` are the groups so far."""
        layers = self.layers(channels[0])
        n_same_layer = sum(group.layers[0] == layers[0] for group in before)
        name = layers[0] + (f"#{n_same_layer + 1}" if n_same_layer else "")
        channels = sorted(channels, key=self.sort_key)
        products = tuple(self._products(channels))
        return Group(
            name, layers, len(channels), tuple(self._slices(channels)), tuple(self._maps(channels)), products
        )

    def _slices(self, channels: list[Component]) -> Iterator[Slice]:
        ends = [end for end in channels[0].members if end.kind == "parameter"]
        for end in sorted(ends, key=self._end_key):
            yield Slice(end.name, end.axis, _rows([c.members[end] for c in channels]), self._role(end))

    def _maps(self, channels: list[Component]) -> Iterator[PassThrough]:
        for name, widths in self._traced.maps.items():
            rows = [_rows([c.members.get(End("map", name, side), ()) for c in channels]) for side in (0, 1)]
            if rows[0].size or rows[1].size:
                yield PassThrough(name, rows[0], rows[1], *widths)

    def _products(self, channels: list[Component]) -> Iterator[ProductSlice]:
        for end in channels[0].members:
            if end.kind == "product":
                rows = _rows([c.members[end] for c in channels])
                yield ProductSlice(end.name, self._traced.products[end.name], end.axis, rows)

    def _end_key(self, end: End) -> tuple[int, bool, int, int]:
        return self._order[layer_of(end.name)], self._role(end) != "in", self._position[end.name], end.axis

    def _is_layer(self, end: End) -> bool:
        return end.kind == "parameter" and (end.name in self._matrices or self._weight_of(end) != end.name)

    def _weight_of(self, end: End) -> str | None:
        return weight_name(self._modules, end.name) if end.kind == "parameter" else None

    def _place(self, end: End) -> tuple[int, int]:
        return self._order[layer_of(end.name)], self._position[end.name]

    def _role(self, end: End) -> Role:
        if role := self._traced.roles.get(end):
            return role
        owner, _, leaf = end.name.rpartition(".")
        if end.kind == "parameter" and isinstance(self._modules[owner], _BatchNorm | _InstanceNorm):
            return "norm"
        if end.kind == "parameter" and isinstance(self._modules[owner], LAYERS) and leaf.startswith("bias"):
            return "out"
        return "other"


def _rows(channels: list[tuple[int, ...]]) -> Indices:
    return np.array(channels, np.int64).reshape(len(channels), -1)


def _shared(module: nn.Module) -> Iterator[str]:
    """Yields the names of parameters that several modules share; a module that runs several times is no such case."""
    first_names: dict[int, str] = {}
    for owner, part in module.named_modules():
        for leaf, tensor in part._parameters.items():
            name = f"{owner}.{leaf}" if owner else leaf
            first = first_names.setdefault(id(tensor), name)
            if tensor is not None and first != name:
                yield from (first, name)

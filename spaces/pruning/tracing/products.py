"""Labels of matrix products and convolutions, and the products whose cost depends on more than the size of a weight."""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spaces.pruning.tracing.calls import Call
from spaces.pruning.tracing.nodes import End, Nodes
from spaces.pruning.tracing.planes import Plane, Planes, along, merged, varying

UNKNOWN = "the channels meet values in {place} that the network does not run without"


@dataclass(frozen=True)
class Product:
    """A matrix product.

    Attributes:
        shape: Its batch, rows, inner size and columns, for `trace.N_EXAMPLES` examples.
        weight: Name of the parameter that it multiplies with; None for a product of two activations.
    """

    shape: tuple[int, int, int, int]
    weight: str | None


class Products:
    """Rules of products, the roles of parameters in them, and the shapes of those of two activations.

    Args:
        nodes: Records the dependencies.
        place: Returns the name of the module that runs.

    Attributes:
        roles: Of each axis of a parameter that a product multiplies with: whether its indices are outputs or inputs.
        products: By name, those of two activations, and those of a weight that meets channels in its rows.
    """

    def __init__(self, nodes: Nodes, place: Callable[[], str]) -> None:
        self._nodes, self._place = nodes, place
        self._pure: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
        self._made: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
        self.roles: dict[End, Literal["out", "in"]] = {}
        self.products: dict[str, Product] = {}

    def own(self, tensor: Tensor, pure: bool, made: bool = False) -> None:
        """Records whether a tensor depends on parameters only, and if so, whether a product of them made it."""
        self._pure[tensor], self._made[tensor] = pure, pure and made

    def is_pure(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on parameters only."""
        return self._pure.get(tensor, False)

    def is_made(self, tensor: Tensor) -> bool:
        """Whether a product of parameters made a tensor: no single parameter has its size."""
        return self._made.get(tensor, False)

    def matrix_product(
        self, call: Call, a: Tensor, b: Tensor, of_a: Planes | None, of_b: Planes | None
    ) -> Planes:
        """Returns the planes of a product of vectors, matrices or batches of matrices; unites labels along the inner axis."""
        left = (1,) * (2 - a.ndim) + tuple(a.shape)
        right = tuple(b.shape) + (1,) * (2 - b.ndim)
        batch = left[:-2] or right[:-2]
        whole = (*batch, left[-2], left[-1], right[-1])  # batch, rows, inner size, columns
        n = len(whole)
        sides = (
            _placed(of_a, left, (*batch, left[-2], left[-1], 1)),
            _placed(of_b, right, (*batch, 1, left[-1], right[-1])),
        )
        inner = n - 2
        if self.is_pure(a) != self.is_pure(b):
            weight, other = (sides[1], sides[0]) if self.is_pure(b) else sides
            self._set_roles(weight, inner)
            if self.is_made(a) or self.is_made(b):
                self._record(whole, sides, None)
            elif any(inner not in plane.axes for plane in other or ()):
                self._record(whole, sides, self._name_of(weight))
        elif not self.is_pure(a):
            self._record(whole, sides, None)
        self._contract(sides, inner, (of_a, of_b))
        shape = (*whole[:inner], whole[-1])
        operands = []
        for planes, own in zip(sides, (left, right), strict=True):
            carried = [p.labels.select(inner, 0) for p in planes or () if inner not in p.axes]
            sizes = (*own[:-1], 1) if own is left else (*own[:-2], 1, own[-1])
            operands.append((None if planes is None else varying(carried), sizes))
        found = merged(self._nodes, operands, shape, UNKNOWN.format(place=self._place()))
        return varying([plane.labels.reshape(call.outputs[0].shape) for plane in found])

    def _contract(self, sides: Sequence[Planes | None], inner: int, given: Sequence[Planes | None]) -> None:
        contracted = [[p for p in planes or () if inner in p.axes] for planes in sides]
        for first in contracted[0]:
            for second in contracted[1]:
                self._nodes.unite(first.core, second.core)
        for mine, other, planes in zip(contracted, reversed(contracted), reversed(given), strict=True):
            for plane in mine:
                self._tie(plane, inner)
                if not other and planes is not None:
                    self._nodes.freeze(plane.core, UNKNOWN.format(place=self._place()))

    def _tie(self, plane: Plane, inner: int) -> None:
        """Unites the labels at the same index of the inner axis, over rows or columns."""
        core = plane.core
        for axis in plane.axes - {inner}:
            if axis >= inner - 1:
                self._nodes.unite(core.narrow(axis, 0, 1), core)

    def _set_roles(self, planes: Planes | None, inner: int) -> None:
        for plane in planes or ():
            for end in self._nodes.ends(plane.core):
                self.roles[end] = "in" if inner in plane.axes else "out"

    def _name_of(self, planes: Planes | None) -> str | None:
        return next((end.name for plane in planes or () for end in self._nodes.ends(plane.core)), None)

    def _record(self, whole: Sequence[int], sides: Sequence[Planes | None], weight: str | None) -> None:
        """Notes the shape of a product, and on which channels it depends."""
        name = f"{self._place()} #{len(self.products) + 1}"
        self.products[name] = Product((prod(whole[:-3]), whole[-3], whole[-2], whole[-1]), weight)
        first = len(whole) - 4  # axes before belong to the batch
        for plane in (p for planes in sides for p in planes or ()):
            ends = {
                at: End("product", name, max(at - first, 0)) for at in plane.axes if at > first or first <= 0
            }
            self._nodes.product(plane.core, ends)

    def convolution(self, of_x: Planes | None, of_weight: Planes | None, call: Call) -> Planes:
        """Returns the planes of a convolution's result; unites its input channels with those of its weight."""
        v, shape = call.values, call.outputs[0].shape
        x, weight, groups = v["input"], v["weight"], v["groups"]
        n_in = x.shape[1]
        axis_out, axis_in = (1, 0) if v["transposed"] else (0, 1)
        inputs = self._channels(of_x, n_in)
        outs, ins = (_vector(of_weight, axis) for axis in (axis_out, axis_in))
        if groups > 1 and groups == n_in:  # depthwise: axis 0 holds inputs and outputs
            held = _vector(of_weight, 0)
            self._role(held, "out")
            if held is None:
                return ()
            if inputs is not None:
                self._nodes.unite(held.reshape(n_in, -1), inputs[:, None])
            if v["transposed"]:
                held = held.repeat_interleave(weight.shape[1])
            return (Plane(along(held, 1, shape)),)
        self._role(outs, "out")
        self._role(ins, "in")
        if ins is not None and inputs is not None:
            width = len(ins) // groups if v["transposed"] else len(ins)
            ins = ins.reshape(-1, width)
            self._nodes.unite(ins[:1], ins)
            self._nodes.unite(inputs.reshape(groups, width), ins[:1])
        elif ins is not None and of_x is not None:
            self._nodes.freeze(ins, UNKNOWN.format(place=self._place()))
        if outs is None:
            return ()
        if v["transposed"]:
            outs = outs.repeat(groups)
        elif groups > 1:
            rows = outs.reshape(groups, -1)
            self._nodes.unite(rows[:1], rows)
        return varying([along(outs, 1, shape)])

    def _role(self, labels: Tensor | None, role: Literal["out", "in"]) -> None:
        for end in self._nodes.ends(labels) if labels is not None else ():
            self.roles[end] = role

    def _channels(self, planes: Planes | None, n: int) -> Tensor | None:
        """Returns the label of each input channel of a convolution, after uniting those of all its positions."""
        found: Tensor | None = None
        for plane in planes or ():
            if 1 not in plane.axes:
                self._nodes.freeze(
                    plane.core, f"the channels lie along another axis than those of {self._place()}"
                )
                continue
            rows = plane.core.movedim(1, 0).reshape(n, -1)
            if rows.shape[1] > 1:
                self._nodes.unite(rows[:, :1], rows)
            labels = rows.amax(1)
            if found is not None:
                self._nodes.unite(found, labels)
            found = labels
        return found


def _placed(planes: Planes | None, own: Sequence[int], sizes: Sequence[int]) -> Planes | None:
    """Returns the planes of an operand with the axes of the whole product."""
    if planes is None:
        return None
    labels = [plane.labels.reshape(tuple(own)).reshape(tuple(sizes)) for plane in planes]
    return varying(labels)


def _vector(planes: Planes | None, axis: int) -> Tensor | None:
    """Returns the labels along an axis of a weight."""
    for plane in planes or ():
        if plane.axes == {axis}:
            return plane.core.reshape(-1)
    return None

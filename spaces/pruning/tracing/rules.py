"""How each operation of torch passes on the labels of channels.

Operations that only move elements are run on the labels themselves. Elements that meet in an element-wise operation depend on each
other; a layer's input channels depend on the axis of its weight that they meet, and its output channels have the labels of the other.
An operation without a rule of its own is taken for an element-wise one if its shapes allow that: trial cuts show where that is wrong.
"""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spaces.pruning.tracing.calls import Call
from spaces.pruning.tracing.nodes import FREE, Nodes
from spaces.pruning.tracing.planes import Plane, Planes, along, merged, reduced, varying
from spaces.pruning.tracing.products import Products

SAME = (
    "alias",
    "clone",
    "contiguous",
    "detach",
    "lift_fresh",
    "_to_copy",
    "dropout",
    "native_dropout",
    "bernoulli",
)
RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_alias")
MOVES = [
    "permute",
    "transpose",
    "t",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "expand",
    "unbind",
    "split",
    "split_with_sizes",
    "unsafe_split",
    "unsafe_chunk",
    "chunk",
    "roll",
    "repeat",
    "unfold",
    "pixel_shuffle",
    "pixel_unshuffle",
    "index",
    "index_select",
    "gather",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "im2col",
    "diagonal",
    "narrow",
    "movedim",
]
SPLITS = ("split", "unsafe_split", "unsafe_chunk", "chunk", "unbind")
REDUCTIONS = [
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "prod",
    "linalg_vector_norm",
    "norm",
    "logsumexp",
    "any",
    "all",
    "var_mean",
]
FRESH = [
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
]
PRODUCTS = ("mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv")
MIXED = "the channels are combined with values that the network does not run without"


class Rules:
    """Labels of the tensors in a run of a network.

    Args:
        nodes: Records the dependencies.
        place: Returns the name of the module that runs, and what kind of module it is.
    """

    def __init__(self, nodes: Nodes, place: Callable[[], str]) -> None:
        self.nodes, self._place = nodes, place
        self._planes: MutableMapping[Tensor, Planes] = WeakTensorKeyDictionary()
        self.products = Products(nodes, place)
        self._rules: dict[str, Callable[[Call], None]] = {
            **dict.fromkeys(MOVES, self._move),
            **dict.fromkeys(RESHAPES, self._reshape),
            **dict.fromkeys(REDUCTIONS, self._reduce),
            **dict.fromkeys(SAME, self._same),
            "constant_pad_nd": self._pad,
            "channel_shuffle": self._channel_shuffle,
            "glu": self._glu,
            "cat": self._cat,
            "stack": self._stack,
            "convolution": self._convolution,
            "_weight_norm_interface": self._weight_norm,
            "native_layer_norm": self._layer_norm,
            "native_group_norm": self._group_norm,
            "embedding": self._embedding,
            **dict.fromkeys(PRODUCTS[:4], self._product),
            **dict.fromkeys(PRODUCTS[4:], self._product_and_sum),
        }

    def label(self, tensor: Tensor, planes: Planes, pure: bool = False) -> None:
        """Sets the labels of a tensor; `pure` if it depends on parameters only."""
        self._planes[tensor] = planes
        self.products.own(tensor, pure)

    def planes(self, tensor: Tensor) -> Planes | None:
        """Returns the labels of a tensor; None for a constant."""
        return self._planes.get(tensor)

    def __call__(self, call: Call) -> None:
        """Labels the results of an operation."""
        known = [t for t in call.tensors if t in self._planes]
        if not known or call.name in FRESH or not call.outputs:
            return
        rule = self._rules.get(call.name) or (self._batch_norm if "batch_norm" in call.name else self._other)
        before = [id(t) for t in known]
        rule(call)
        pure = all(self.products.is_pure(t) for t in known)
        made = any(self.products.is_made(t) for t in known) or (call.name in PRODUCTS and len(known) > 1)
        for out in call.outputs:
            if out not in self._planes or id(out) not in before:
                self._planes.setdefault(out, ())
            self.products.own(out, pure, made)

    # Operations that move elements

    def _move(self, call: Call) -> None:
        planes = self._planes.get(call.tensors[0])
        if planes is None:
            self._other(call)
            return
        results = [call.on(plane.labels) for plane in planes]
        if isinstance(call.out, Tensor):
            self.label(call.out, varying(results))
            return
        for at, out in enumerate(call.outputs):
            self.label(out, varying([pieces[at] for pieces in results]))
        if call.name in SPLITS:
            for pieces in results:
                if len({piece.shape for piece in pieces}) == 1 and Plane(pieces[0]).axes:
                    self.nodes.split(torch.stack([Plane(p).core for p in pieces]).flatten(1))

    def _channel_shuffle(self, call: Call) -> None:
        self._move(call)
        for plane in self._planes.get(call.tensors[0], ()):
            if plane.axes == {1}:
                self.nodes.split(plane.core.reshape(call.values["groups"], -1))

    def _glu(self, call: Call) -> None:
        x = call.tensors[0]
        dim = call.values["dim"] % x.ndim
        halves = [p.labels.chunk(2, dim) for p in self._planes.get(x, ())]
        operands = [(varying([pair[at] for pair in halves]), call.out.shape) for at in (0, 1)]
        self.label(call.out, merged(self.nodes, operands, call.out.shape, MIXED))

    def _reshape(self, call: Call) -> None:
        planes = varying([plane.labels.reshape(call.out.shape) for plane in self._planes[call.tensors[0]]])
        for plane, old in zip(planes, self._planes[call.tensors[0]], strict=False):
            if len(plane.axes) > len(old.axes):
                self.nodes.split(plane.core.squeeze())
        self.label(call.out, planes)

    def _same(self, call: Call) -> None:
        planes = self._planes[call.tensors[0]]
        for out in call.outputs:
            self.label(out, planes)

    def _pad(self, call: Call) -> None:
        pad = call.values["pad"]
        labels = [torch.constant_pad_nd(p.labels, pad, FREE) for p in self._planes[call.tensors[0]]]
        self.label(call.out, varying(labels))

    def _cat(self, call: Call) -> None:
        self._concatenate(call, call.tensors, call.values.get("dim", 0) % call.out.ndim)

    def _stack(self, call: Call) -> None:
        dim = call.values.get("dim", 0) % call.out.ndim
        pieces = [tensor.unsqueeze(dim) for tensor in call.tensors]
        for piece, tensor in zip(pieces, call.tensors, strict=True):
            if (planes := self.planes(tensor)) is not None:
                self.label(piece, varying([plane.labels.unsqueeze(dim) for plane in planes]))
        self._concatenate(call, pieces, dim)

    def _concatenate(self, call: Call, pieces: Sequence[Tensor], dim: int) -> None:
        pieces = [piece for piece in pieces if piece.ndim == call.out.ndim]
        slots: list[dict[int, Plane]] = []
        for at, piece in enumerate(pieces):
            for plane in self._planes.get(piece, ()):
                slot = next((s for s in slots if at not in s and _fit(s, plane, dim)), None)
                if slot is None:
                    slots.append(slot := {})
                slot[at] = self._aligned(plane, next(iter(slot.values()), plane), dim)
        results = [
            torch.cat(
                [s[at].labels if at in s else _free(piece.shape) for at, piece in enumerate(pieces)], dim
            )
            for s in slots
        ]
        self.label(call.out, varying(results))

    # Layers

    def _convolution(self, call: Call) -> None:
        v = call.values
        x, weight, bias = v["input"], v["weight"], v["bias"]
        self.label(call.out, self.products.convolution(self.planes(x), self.planes(weight), call))
        if bias is not None and self.planes(bias):
            self._add_bias(call.out, bias, 1)

    def _add_bias(self, out: Tensor, bias: Tensor, axis: int) -> None:
        for end in self.nodes.ends(self._planes[bias][0].labels) if self.products.is_pure(bias) else ():
            self.products.roles[end] = "out"
        self._affine(out, out, [bias], axis)

    def _product(self, call: Call) -> None:
        a, b = call.tensors[:2]
        self.label(call.out, self.products.matrix_product(call, a, b, self.planes(a), self.planes(b)))

    def _product_and_sum(self, call: Call) -> None:
        added, a, b = call.tensors[:3]
        planes = self.products.matrix_product(call, a, b, self.planes(a), self.planes(b))
        self.label(call.out, planes)
        if added.ndim == 1 and self.planes(added):
            self._add_bias(call.out, added, call.out.ndim - 1)
        else:
            self._merge(call, [call.out, added], [planes, self.planes(added)])

    def _weight_norm(self, call: Call) -> None:
        v, g = call.tensors[:2]
        self._merge(call, [v, g], [self.planes(v), self.planes(g)], out=call.outputs[0])

    def _batch_norm(self, call: Call) -> None:
        x, *vectors = call.tensors
        self._affine(call.outputs[0], x, [t for t in vectors if t.ndim == 1], 1)

    def _layer_norm(self, call: Call) -> None:
        v = call.values
        self._affine(
            call.outputs[0], v["input"], [t for t in (v["weight"], v["bias"]) if t is not None], None
        )

    def _group_norm(self, call: Call) -> None:
        v = call.values
        self._affine(call.outputs[0], v["input"], [t for t in (v["weight"], v["bias"]) if t is not None], 1)
        groups = v["group"]
        for plane in self._planes[call.outputs[0]]:
            if plane.axes == {1} and groups not in (1, v["C"]):
                self.nodes.split(plane.core.reshape(groups, -1))

    def _affine(self, out: Tensor, x: Tensor, vectors: Sequence[Tensor], axis: int | None) -> None:
        """Labels the result of an operation with parameters along an axis; None for the last ones."""
        operands: list[tuple[Planes | None, Sequence[int]]] = [(self.planes(x), x.shape)]
        for vector in vectors:
            planes = self.planes(vector)
            shape = (
                list(vector.shape)
                if axis is None
                else [1] * axis + list(vector.shape) + [1] * (out.ndim - axis - 1)
            )
            operands.append((planes and varying([p.labels.reshape(shape) for p in planes]), shape))
        self.label(out, merged(self.nodes, operands, out.shape, MIXED))

    def _embedding(self, call: Call) -> None:
        planes = [p for p in self._planes.get(call.tensors[0], ()) if p.axes == {1}]
        shape = call.out.shape
        self.label(call.out, tuple(Plane(along(p.labels[0], len(shape) - 1, shape)) for p in planes))

    def _reduce(self, call: Call) -> None:
        x = call.tensors[0]
        if call.name in ("max", "min") and len(call.tensors) == 2:
            self._other(call)
            return
        axes, keepdim = call.axes(x.ndim), bool(call.values.get("keepdim", False))
        labels = [reduced(plane.labels, axes, keepdim) for plane in self._planes.get(x, ())] if x.ndim else []
        for out in call.outputs:
            self.label(out, varying(labels))

    # All others

    def _other(self, call: Call) -> None:
        for out in call.outputs:
            self._pass(call, out)

    def _pass(self, call: Call, out: Tensor) -> None:
        known = [t for t in call.tensors if t in self._planes]
        if all(_broadcasts(t.shape, out.shape) for t in known):
            self._merge(call, known, [self._planes[t] for t in known], out)
            return
        first = known[0]
        same = [a for a in range(out.ndim) if first.ndim == out.ndim and first.shape[a] == out.shape[a]]
        passed = [p for p in self._planes[first] if p.axes <= set(same)] if len(known) == 1 else []
        lost = [p for t in known for p in self._planes[t] if p not in passed]
        for plane in lost:
            self.nodes.freeze(
                plane.core,
                f"the channels pass through {self._place()}, and there is no rule to cut {call.name}",
            )
        self.label(out, tuple(Plane(p.core.expand(out.shape)) for p in passed))

    def _merge(
        self,
        call: Call,
        tensors: Sequence[Tensor],
        planes: Sequence[Planes | None],
        out: Tensor | None = None,
    ) -> None:
        out = call.outputs[0] if out is None else out
        operands = [(p, t.shape) for p, t in zip(planes, tensors, strict=True)]
        self.label(out, merged(self.nodes, operands, out.shape, MIXED))

    def _aligned(self, plane: Plane, first: Plane, dim: int) -> Plane:
        """Returns a piece's plane with the labels of the first one, where both lie along other axes: these are cut together."""
        if dim in plane.axes or plane.axes != first.axes:
            return plane
        self.nodes.unite(first.core, plane.core)
        return Plane(first.core.expand(plane.labels.shape))


def _fit(slot: dict[int, Plane], plane: Plane, dim: int) -> bool:
    """Whether a plane continues those of a slot where tensors are concatenated along an axis."""
    axes = next(iter(slot.values())).axes
    return bool(axes & plane.axes) or axes - {dim} == plane.axes - {dim}


def _free(shape: Sequence[int]) -> Tensor:
    return torch.zeros((), dtype=torch.float64).expand(tuple(shape))


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    pairs: Any = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(a in (1, b) for a, b in pairs)

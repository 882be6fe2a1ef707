"""Numbers for the indices along axes of parameters and modules, and which of them depend on each other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

FREE = 0  # the label of elements that depend on no channel that could be cut


class End(NamedTuple):
    """An axis whose indices are channels.

    `kind` says of what: of a parameter or buffer (`axis` is its axis), of a matrix product of activations (0 to 3: its
    batch, rows, inner size, columns), or a `ChannelMap`'s inputs or outputs (axis 0 or 1).
    """

    kind: Literal["parameter", "product", "map"]
    name: str
    axis: int


@dataclass(frozen=True)
class Component:
    """Channels that can only be cut together.

    Attributes:
        members: Indices of the channels at each end, ascending.
        reason: Why they cannot be cut, as far as the trace shows; None if it does not.
    """

    members: dict[End, tuple[int, ...]]
    reason: str | None


class Nodes:
    """Labels are numbers of nodes, stored as float64, since every operation of torch takes these."""

    def __init__(self) -> None:
        self._starts: dict[End, int] = {}
        self._sizes: dict[End, int] = {}
        self._pairs: list[NDArray[np.int64]] = []
        self._frozen: list[tuple[NDArray[np.int64], str]] = []
        self._splits: list[Tensor] = []
        self._operands: list[tuple[Tensor, dict[int, End]]] = []
        self._known: tuple[tuple[int, int], NDArray[np.int64]] | None = None
        self._n = 1

    def labels(self, end: End, size: int) -> Tensor:
        """Returns the labels of an axis' indices, `(size,)`."""
        if end not in self._starts:
            self._starts[end], self._sizes[end] = self._n, size
            self._n += size
        start = self._starts[end]
        return torch.arange(start, start + size, dtype=torch.float64)

    def unite(self, a: Tensor, b: Tensor) -> None:
        """Records that channels with these labels depend on each other, element by element; shapes broadcast."""
        a, b = (
            a.expand(np.broadcast_shapes(a.shape, b.shape)),
            b.expand(np.broadcast_shapes(a.shape, b.shape)),
        )
        for axis in range(a.ndim):
            if a.stride(axis) == 0 and b.stride(axis) == 0:
                a, b = a.narrow(axis, 0, 1), b.narrow(axis, 0, 1)
        if torch.equal(a, b):
            return
        pairs = np.stack([a.reshape(-1).numpy(), b.reshape(-1).numpy()]).astype(np.int64)
        pairs = pairs[:, (pairs[0] != FREE) & (pairs[1] != FREE) & (pairs[0] != pairs[1])]
        if pairs.size:
            codes = np.unique(pairs[0] * self._n + pairs[1])
            self._pairs.append(np.stack([codes // self._n, codes % self._n]))

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Records that the channels with these labels cannot be cut."""
        found = _distinct(labels)
        if found.size:
            self._frozen.append((found, reason))

    def split(self, labels: Tensor) -> None:
        """Records that an axis of channels was split into several axes, of which all but one must keep their sizes."""
        self._splits.append(labels)

    def ends(self, labels: Tensor) -> set[End]:
        """Returns the ends that these labels belong to."""
        found = _distinct(labels)
        names, starts = list(self._starts), np.array(list(self._starts.values()))
        return {names[at] for at in np.unique(np.searchsorted(starts, found, side="right") - 1)}

    def product(self, labels: Tensor, ends: Mapping[int, End]) -> None:
        """Records the labels of a product's operand, and which of its axes are which of the product's."""
        for axis, end in ends.items():
            self.labels(end, labels.shape[axis])
        self._operands.append((labels, dict(ends)))

    def components(self) -> Iterator[Component]:
        """Yields the sets of channels that depend on each other.

        Where an axis of channels was split, e.g. into heads and their channels, all parts lose the same channels.
        """
        for labels in self._splits:
            if labels.ndim > 1 and not any(self._decides(labels, axis) for axis in range(labels.ndim)):
                lines = labels.reshape(-1, labels.shape[-1])
                self.unite(lines[:1], lines)
        for labels, ends in self._operands:
            for axis, end in ends.items():
                if self._decides(labels, axis):
                    line = labels[tuple(slice(None) if a == axis else 0 for a in range(labels.ndim))]
                    self.unite(line, self.labels(end, len(line)))
        of = self._component_of()
        reasons: dict[int, str] = {}
        for nodes, reason in self._frozen:
            for component in np.unique(of[nodes]).tolist():
                reasons.setdefault(component, reason)
        members: dict[int, dict[End, list[int]]] = {}
        for end, start in self._starts.items():
            for index, component in enumerate(of[start : start + self._sizes[end]].tolist()):
                members.setdefault(component, {}).setdefault(end, []).append(index)
        for component, found in members.items():
            yield Component({end: tuple(i) for end, i in found.items()}, reasons.get(component))

    def _decides(self, labels: Tensor, axis: int) -> bool:
        """Whether the components along an axis are the same at every index of the others."""
        at = self._component_of()[labels.long().numpy()]
        return bool((at == at[tuple(slice(None) if a == axis else slice(1) for a in range(at.ndim))]).all())

    def _component_of(self) -> NDArray[np.int64]:
        if self._known is not None and self._known[0] == (len(self._pairs), self._n):
            return self._known[1]
        pairs = np.concatenate([np.zeros((2, 1), np.int64), *self._pairs], axis=1)
        graph = coo_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(self._n, self._n))
        found: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
        self._known = (len(self._pairs), self._n), found
        return found


def _distinct(labels: Tensor) -> NDArray[np.int64]:
    for axis in range(labels.ndim):
        if labels.stride(axis) == 0:
            labels = labels.narrow(axis, 0, 1)
    found = np.unique(labels.reshape(-1).numpy().astype(np.int64))
    distinct: NDArray[np.int64] = found[found != FREE]
    return distinct

"""Labels of a tensor's elements: planes of the tensor's shape, and how planes of several tensors are merged.

An element goes when the channel of its label in any plane goes. Most activations have one plane, whose labels vary along the
channel axis; a weight has one for its outputs and one for its inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from spaces.pruning.tracing.nodes import FREE, Nodes


@dataclass(frozen=True, eq=False)
class Plane:
    """One label for every element of a tensor.

    Attributes:
        labels: float64, of the tensor's shape.
    """

    labels: Tensor

    @cached_property
    def axes(self) -> frozenset[int]:
        """The axes along which the labels vary."""
        return frozenset(axis for axis in range(self.labels.ndim) if _varies(self.labels, axis))

    @property
    def core(self) -> Tensor:
        """The labels, with size 1 along the axes along which they do not vary."""
        labels = self.labels
        for axis in range(labels.ndim):
            if axis not in self.axes and labels.shape[axis]:
                labels = labels.narrow(axis, 0, 1)
        return labels


Planes = tuple[Plane, ...]


def varying(tensors: Sequence[Tensor]) -> Planes:
    """Returns the planes of those labels that vary: a single channel can't be cut, so its label says nothing."""
    planes = (Plane(labels) for labels in tensors)
    return tuple(plane for plane in planes if plane.axes)


def along(labels: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """Returns labels `(n,)` of an axis, expanded to a shape."""
    sizes = [1] * len(shape)
    sizes[axis] = len(labels)
    return labels.reshape(sizes).expand(tuple(shape))


def merged(
    nodes: Nodes, operands: Sequence[tuple[Planes | None, Sequence[int]]], shape: Sequence[int], reason: str
) -> Planes:
    """Returns the planes of the result of an operation on corresponding elements; unites the labels that meet.

    Args:
        nodes: Records the dependencies.
        operands: Planes and shape of each operand; None for a constant.
        shape: Shape of the result, to which all operands broadcast.
        reason: Why channels cannot be cut that meet values which belong to none.
    """
    found: list[Tensor] = []
    for planes, _ in operands:
        others, found = found, []
        for plane in planes or ():
            others, labels = _with(nodes, others, plane.core.expand(tuple(shape)))
            found.append(labels)
        found += others
    result = varying(found)
    for planes, own in operands:
        if planes is not None:
            result = _without_unmatched(nodes, result, planes, own, shape, reason)
    return result


def _with(nodes: Nodes, others: list[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor]:
    """Returns the planes of other operands that vary along other axes than a plane, and its labels united with the rest."""
    apart: list[Tensor] = []
    axes = Plane(labels).axes
    for other in others:
        if Plane(other).axes & axes:
            nodes.unite(other, labels)
            labels = other if not bool((other == FREE).any()) else torch.where(other == FREE, labels, other)
            axes = Plane(labels).axes
        else:
            apart.append(other)
    return apart, labels


def _without_unmatched(
    nodes: Nodes, result: Planes, planes: Planes, own: Sequence[int], shape: Sequence[int], reason: str
) -> Planes:
    """Returns the planes without those that meet elements of an operand which belong to no channel, and freezes these."""
    missing = len(shape) - len(own)
    real = {at + missing for at, size in enumerate(own) if size > 1}
    labelled = {axis + missing for plane in planes for axis in plane.axes}
    frozen = [plane for plane in result if plane.axes <= real and not plane.axes & labelled]
    for plane in frozen:
        nodes.freeze(plane.core, reason)
    return tuple(plane for plane in result if plane not in frozen)


def reduced(labels: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """Returns the labels after a reduction: that of all reduced elements, or none where they differ."""
    least, most = (f(labels, dim=tuple(axes), keepdim=keepdim) for f in (torch.amin, torch.amax))
    return torch.where(least == most, least, FREE)


def _varies(labels: Tensor, axis: int) -> bool:
    if labels.shape[axis] < 2 or labels.stride(axis) == 0 or not labels.numel():
        return False
    return not bool((labels == labels.narrow(axis, 0, 1)).all())

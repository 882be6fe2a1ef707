"""The hypervolume of a front, relative to the uncompressed model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.column import Column
from search.record.front import losses
from search.record.nondomination import non_dominated
from search.record.results import Constraint, Objective, TrialRecord


class Volume:
    """Hypervolume of fronts on axes scaled by the baseline: 1 is a model without costs and without loss.

    The reference point is the baseline's cost on every axis to minimise; on an axis to maximise, and on that of the task's
    metric, it is the bound of the first constraint on that axis or on its drop, or a tenth worse than the baseline where there
    is none.
    With several devices it is the mean over the devices, each with its own costs and all axes that belong to
    no device, so that values are comparable between one device and many. Axes that the baseline lacks, e.g.
    its latency where a device has no floating-point arithmetic, are left out.

    Args:
        objectives: The axes.
        constraints: Limits that a feasible trial keeps.
        baseline: The uncompressed model's values by column.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        baseline: Mapping[str, float],
    ) -> None:
        self._objectives = objectives
        usable = [a for o in objectives if (a := _axis(o, constraints, baseline)) is not None]
        devices = dict.fromkeys(d for axis in usable if (d := axis.device) is not None)
        axes = [[a for a in usable if a.device in (None, device)] for device in devices or [None]]
        self._axes_by_device = [of_device for of_device in axes if len(of_device) > 1]

    @property
    def defined(self) -> bool:
        """Whether there are at least two axes on which the baseline has a usable value."""
        return bool(self._axes_by_device)

    def of(self, records: Sequence[TrialRecord]) -> float:
        """Returns the hypervolume of feasible records; those that lack an objective are left out."""
        complete = [r.values() for r in records if losses(r, self._objectives) is not None]
        if not complete:
            return 0.0
        fronts = [
            np.array([[axis.scaled(values) for axis in axes] for values in complete])
            for axes in self._axes_by_device
        ]
        return float(np.mean([hypervolume(points, np.ones(points.shape[1])) for points in fronts]))


@dataclass(frozen=True)
class _Axis:
    column: str
    at_zero: float  # value that scales to 0: no cost, or the baseline's score
    at_one: float  # value that scales to 1: the reference point's

    @property
    def device(self) -> str | None:
        return Column.parse(self.column).device

    def scaled(self, values: Mapping[str, float]) -> float:
        return (values[self.column] - self.at_zero) / (self.at_one - self.at_zero)


def _axis(
    objective: Objective, constraints: Sequence[Constraint], baseline: Mapping[str, float]
) -> _Axis | None:
    base = baseline.get(objective.column)
    if base is None:
        return None
    is_cost = f"{objective.column}_drop" not in baseline
    if objective.direction == "minimize" and is_cost:
        return _Axis(objective.column, 0.0, base) if base > 0 else None
    worst = _allowed(objective, constraints, base)
    sign = 1.0 if objective.direction == "maximize" else -1.0
    return _Axis(objective.column, base, worst) if sign * base > sign * worst else None


def _allowed(objective: Objective, constraints: Sequence[Constraint], base: float) -> float:
    """Returns the worst value that the constraints allow; without any, one that is worse by a tenth."""
    sign, worst_kind = (1.0, "min") if objective.direction == "maximize" else (-1.0, "max")
    for constraint in constraints:
        if constraint.column == objective.column and constraint.kind == worst_kind:
            return constraint.bound
        if constraint.column == f"{objective.column}_drop" and constraint.kind == "max":
            return base - sign * constraint.bound
    return base - sign * 0.1 * abs(base)


def hypervolume(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Returns the exact volume that is dominated by the points and bounded by the reference point.

    Slices along the last axis (Zitzler's hypervolume by slicing objectives); meant for fronts of up to a few
    hundred points in up to about five dimensions.

    Args:
        points: `(n, d)`, to be minimised.
        reference: `(d,)`; points that are not better on every axis are ignored.
    """
    points = points[(points < reference).all(axis=1)]
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(reference[0] - points.min())
    points = points[np.argsort(points[:, -1])]
    if points.shape[1] == 2:
        widths = reference[0] - np.minimum.accumulate(points[:, 0])
        return float(np.sum(widths * np.diff(points[:, 1], append=reference[1])))
    edges = np.append(points[1:, -1], reference[-1])
    total = 0.0
    for i, height in enumerate(edges - points[:, -1]):
        if height > 0:
            face = points[: i + 1, :-1]
            face = face if face.shape[1] == 2 else face[non_dominated(-face)]  # two axes need no front
            total += float(height) * hypervolume(face, reference[:-1])
    return total

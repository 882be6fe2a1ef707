"""Measurements of other tasks on one scale: drops below the uncompressed model, as ranks among all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import KnowledgeRow, Params
from search.samplers.surrogate.model.targets import Target

Array = NDArray[np.float64]
_FAR = 3.0  # ratio of the tasks' best values from which on scores are rates, such as images per second


@dataclass(frozen=True)
class Scale:
    """Maps the values of a task to heights, whose differences can be compared between tasks.

    Scores are compared by their difference, costs and rates by their ratio (a network half the size has half the cost
    of everything).

    Attributes:
        sign: -1 where the value is to be minimised.
        ratio: Whether values are compared by ratio: the height is then the logarithm of a rate, minus that of a cost.
    """

    sign: float
    ratio: bool

    def value(self, heights: Array) -> Array:
        """Returns values times `sign`, `(n,)`: the inverse of `height`."""
        return np.asarray(self.sign * np.exp(self.sign * heights)) if self.ratio else heights

    def height(self, values: Array) -> Array:
        """Returns heights `(n,)`, higher is better, of values times `sign`; NaN where there is no ratio."""
        if not self.ratio:
            return values
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.sign * np.log(self.sign * values))


@dataclass(frozen=True)
class RankedDrop:
    """Minus the logarithm of a drop's rank among the drops of all other tasks, standardised.

    The logarithm makes the step from the best to the second best as long as that from the tenth to the
    twentieth, so that differences between collapsed networks hardly count. Ranks need no unit and no typical
    drop.

    Attributes:
        scale: Maps values to heights.
        top: The height from which drops are measured; NaN while it is unknown.
        drops: `(k,)`, distinct drops of the other tasks, ascending.
        scores: `(k,)`, their scores, descending.
    """

    scale: Scale
    top: float
    drops: Array
    scores: Array

    def __call__(self, values: Array) -> Array:
        """Returns scores `(n,)` of values times the sign, extrapolated linearly beyond the known drops."""
        drops = self.top - self.scale.height(values)
        scores = np.interp(drops, self.drops, self.scores)
        scores += self._slope * (np.maximum(self.drops[0] - drops, 0) - np.maximum(drops - self.drops[-1], 0))
        return np.where(np.isnan(drops), np.nan, scores)

    def inverse(self, scores: Array) -> Array:
        """Returns the values times the sign, `(n,)`, that have these scores."""
        return self.scale.value(self.top - self.drop(scores))

    def drop(self, scores: Array) -> Array:
        """Returns the drops `(n,)` that have these scores, whatever `top` is."""
        drops = np.interp(-scores, -self.scores, self.drops)
        beyond = np.maximum(scores - self.scores[0], 0) - np.maximum(self.scores[-1] - scores, 0)
        return np.asarray(drops - beyond / self._slope)

    @property
    def _slope(self) -> float:
        return float((self.scores[0] - self.scores[-1]) / (self.drops[-1] - self.drops[0]))


@dataclass(frozen=True)
class Task:
    """Measurements of one other task.

    Attributes:
        candidates: Its `n` measured candidates.
        drops: `(n,)`, how far the height of each is below the task's reference.
        best: Height of the best of them.
    """

    candidates: Sequence[Params]
    drops: Array
    best: float


def tasks_of(rows: Sequence[KnowledgeRow], sign: float, from_baseline: bool) -> tuple[Scale, list[Task]]:
    """Groups rows by task, and computes their drops.

    Args:
        rows: Of all tasks.
        sign: -1 where the value is to be minimised.
        from_baseline: Whether drops are measured from the uncompressed model, where it is known; otherwise
            from the task's best row.

    Returns:
        The scale on which drops are computed, and the tasks.
    """
    finite = [row for row in rows if np.isfinite(row.value)]
    grouped: dict[str, list[KnowledgeRow]] = {}
    for row in finite:
        grouped.setdefault(row.task, []).append(row)
    scale = Scale(sign, _by_ratio(list(grouped.values()), sign))
    tasks = []
    for members in grouped.values():
        heights = scale.height(sign * np.array([row.value for row in members]))
        baseline = members[0].baseline if from_baseline else None
        top = float(heights.max())
        if baseline is not None:
            height = scale.height(np.array([sign * baseline]))[0]
            top = float(height) if np.isfinite(height) else top
        tasks.append(Task([row.params for row in members], top - heights, float(heights.max())))
    return scale, tasks


def _by_ratio(tasks: Sequence[Sequence[KnowledgeRow]], sign: float) -> bool:
    """Returns whether values are compared by ratio: positive costs, and rates whose best values lie far apart."""
    if any(row.value <= 0 for rows in tasks for row in rows):
        return False
    bests = [max(row.value for row in rows) for rows in tasks]
    return sign < 0 or max(bests, default=1.0) > _FAR * min(bests, default=1.0)


def ranked(scale: Scale, tasks: Sequence[Task], top: float) -> RankedDrop:
    """Returns the scale on which the tasks' drops are learned.

    Args:
        scale: Maps values to heights.
        tasks: At least one.
        top: The height from which the present task's drops are measured.
    """
    drops, counts = np.unique(np.concatenate([task.drops for task in tasks]), return_counts=True)
    ranks = np.cumsum(counts) - 0.5 * (counts - 1)  # ties share their mean rank
    scores = -np.log(ranks / counts.sum())
    mean = np.average(scores, weights=counts)
    std = np.sqrt(np.average((scores - mean) ** 2, weights=counts)) or 1.0
    return RankedDrop(scale, top, drops, (scores - mean) / std)


def scored(target: Target, tasks: Sequence[Task]) -> list[Array]:
    """Returns the scores of the tasks' rows, `(n,)` each; `target` must be a `RankedDrop`."""
    assert isinstance(target, RankedDrop)
    return [np.interp(task.drops, target.drops, target.scores) for task in tasks]

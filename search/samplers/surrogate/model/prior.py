"""The prior of the first objective, learned from the measurements of other tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import SamplerContext
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.kernel import Block, Kernel, fitted, unfitted
from search.samplers.surrogate.model.tasks import RankedDrop, ranked, scored, tasks_of

Array = NDArray[np.float64]
_MAX_POINTS = 500  # of other tasks together; more are subsampled
_MAX_FITTED = 250  # points that kernels are fitted to
_SHARED = 0.1  # factor on the covariance of two candidates' departures from the prior mean


@dataclass(frozen=True)
class _Pooled:
    """Rows of several tasks, with one row for equal points.

    Attributes:
        points: `(n, n_knobs)`, different ones.
        values: `(n,)`, mean of each point's values over the tasks.
        repeats: `(n,)`, number of values of each point.
        scatter: Sum of squared deviations of the values from their point's mean.
    """

    points: Array
    values: Array
    repeats: Array
    scatter: float

    @classmethod
    def of(cls, points: Sequence[Array], values: Sequence[Array]) -> "_Pooled":
        """Joins the tasks' points, `(n_task, n_knobs)` each, and their values, `(n_task,)` each."""
        every, heights = np.concatenate(points), np.concatenate(values)
        # NaN (an inactive knob) is not equal to itself; no knob has the value -9
        _, first, at = np.unique(
            np.nan_to_num(every, nan=-9.0), axis=0, return_index=True, return_inverse=True
        )
        at = at.ravel()
        repeats = np.bincount(at).astype(float)
        means = np.bincount(at, heights) / repeats
        return cls(every[first], means, repeats, float(np.sum((heights - means[at]) ** 2)))

    def subsampled(self, most: int) -> "_Pooled":
        """Returns at most `most` points: half of them the best, the others evenly spaced over the ranks of the rest."""
        n = len(self.values)
        if n <= most:
            return self
        order = np.argsort(-self.values, kind="stable")
        half = most // 2
        keep = np.concatenate(
            [order[:half], order[half:][np.linspace(0, n - half - 1, most - half).astype(int)]]
        )
        return _Pooled(self.points[keep], self.values[keep], self.repeats[keep], self.scatter * most / n)

    def weights(self, kernel: Kernel, noise: float) -> Array:
        """Returns weights `(n,)` such that the posterior mean at points x is `kernel(x, points) @ weights`."""
        from scipy.linalg import solve

        spread = kernel(self.points, self.points) + np.diag(noise / self.repeats + 1e-8)
        return np.asarray(solve(spread, self.values, assume_a="pos"))


@dataclass(frozen=True)
class TaskPrior:
    """A Gaussian-process prior for a task that resembles others.

    Its mean is the posterior mean of a Gaussian process over the rows of all other tasks, in which
    differences between tasks count as noise. Its covariance is that of the departures of a task from this
    mean, learned by predicting each of the other tasks from the rest of them (as in HyperBO, Wang et al.
    2021, arXiv 2109.08215). Departures have heavy tails: the collapse of one candidate informs less about
    other candidates than it would under a normal distribution, so their covariance is scaled down.

    Attributes:
        target: The scale of the values.
        noise: Variance of a single value.
        points: `(n, n_knobs)`, the other tasks' candidates.
        weights: `(n,)`, of these in the mean, see `_Pooled.weights`.
        kernel: Kernel of the mean.
        departures: Kernel of the departures.
    """

    target: RankedDrop
    noise: float
    points: Array
    weights: Array
    kernel: Kernel
    departures: Kernel

    def target_for(self, values: Array) -> RankedDrop:
        """Returns the scale, with drops from the best of the values `(n,)` if the uncompressed model's is unknown."""
        if np.isfinite(self.target.top):
            return self.target
        heights = self.target.scale.height(values)
        heights = heights[np.isfinite(heights)]
        return replace(self.target, top=float(heights.max(initial=-np.inf)) if len(heights) else 0.0)

    def mean(self, points: Array) -> Array:
        """Returns the prior mean `(n,)` of points `(n, n_knobs)`."""
        return np.asarray(self.kernel(points, self.points) @ self.weights)

    def covariance(self, a: Array, b: Array) -> Array:
        """Returns the departures' covariances `(n, m)`, scaled down between different candidates."""
        covariance = self.departures(a, b)
        same = covariance >= self.departures.total * (1 - 1e-9)  # both are one candidate
        return np.where(same, covariance, _SHARED * covariance)

    def variance(self, points: Array) -> Array:
        """Returns the departures' variance for each point, `(n,)`."""
        return np.full(len(points), self.departures.total)


def informed_prior(context: SamplerContext, encoding: Encoding) -> TaskPrior | None:
    """Learns the prior from the other tasks' rows; None if there are none, or all of each task are equal."""
    sign = 1.0 if context.directions[0] == "maximize" else -1.0
    baseline = context.baselines[0] if context.baselines else None
    scale, tasks = tasks_of(context.knowledge, sign, baseline is not None)
    if not tasks or max(np.ptp(task.drops) for task in tasks) == 0:
        return None
    top = np.nan if baseline is None else float(scale.height(np.array([sign * baseline]))[0])
    target = ranked(scale, tasks, top)
    values = scored(target, tasks)
    points = [encoding.points(task.candidates) for task in tasks]
    pooled = _Pooled.of(points, values).subsampled(_MAX_POINTS)
    some = pooled.subsampled(_MAX_FITTED)
    block = Block(some.points, some.values, some.repeats, np.zeros(len(some.values)), some.scatter)
    kernel, spread = fitted(encoding, [block])
    departures, noise = _departures(encoding, points, values, kernel, spread)
    return TaskPrior(target, noise, pooled.points, pooled.weights(kernel, spread), kernel, departures)


def _departures(
    encoding: Encoding, points: Sequence[Array], values: Sequence[Array], kernel: Kernel, spread: float
) -> tuple[Kernel, float]:
    """Returns the kernel of the residuals of tasks predicted from the other tasks, and their noise variance.

    Args:
        encoding: Computes distances.
        points: The tasks' candidates, `(n_task, n_knobs)` each.
        values: Their values on the common scale, `(n_task,)` each.
        kernel: Kernel of the prior mean.
        spread: Noise variance of the prior mean, differences between tasks included.
    """
    if len(points) == 1:
        return unfitted(encoding)
    blocks = []
    most = max(_MAX_FITTED // len(points), 20)
    for at, (task_points, task_values) in enumerate(zip(points, values, strict=True)):
        others = _Pooled.of([*points[:at], *points[at + 1 :]], [*values[:at], *values[at + 1 :]])
        some = _Pooled.of([task_points], [task_values]).subsampled(most)
        others = others.subsampled(_MAX_POINTS)
        residuals = some.values - kernel(some.points, others.points) @ others.weights(kernel, spread)
        blocks.append(Block(some.points, residuals, some.repeats, np.zeros(len(residuals))))
    return fitted(encoding, blocks, offset=0.0)

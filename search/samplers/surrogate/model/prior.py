"""The prior of the first objective, learned from the measurements of other tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import SamplerContext
from search.samplers.surrogate.model.calibration import Calibration, Collapses, predict_each_other, quantiles
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.kernel import Block, Kernel, fitted, unfitted
from search.samplers.surrogate.model.tasks import RankedDrop, Scale, Task, ranked, scored, tasks_of

Array = NDArray[np.float64]
_MAX_POINTS = 500  # of other tasks together; more are subsampled
_MAX_FITTED = 250  # points that kernels are fitted to
_LEAST_SPREAD = 0.1  # of a task's usual range: the least standard deviation of the tasks' bests
_COLLAPSED = 0.5  # of a task's usual range: the least drop of a collapsed candidate
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
        means: `(n,)`, the prior mean of `points`.
        calibration: How well these predict each other.
        collapses: How well they predict each other's collapses; None where values are compared by ratio, and of a single task.
        tops: Height of the other tasks' best rows, and its standard deviation; minus infinity and 1 where
            heights are not comparable.
    """

    target: RankedDrop
    noise: float
    points: Array
    weights: Array
    kernel: Kernel
    departures: Kernel
    means: Array
    calibration: Calibration
    collapses: Collapses | None
    tops: tuple[float, float]

    def targets_for(self, points: Array, values: Array) -> list[tuple[RankedDrop, float]]:
        """Returns scales of the values, and the logarithm of the prior probability of each up to a constant.

        Where the uncompressed model's value is known, drops are measured from it. Otherwise they are measured from what the
        trials imply, if each came out as predicted (the median over the trials), or from the other tasks' bests: a task
        whose first trials are all collapsed seems to have a low best value.

        Args:
            points: `(n, n_knobs)`, candidates of the trials.
            values: `(n,)`, higher is better; NaN where nothing was measured.
        """
        heights = self.target.scale.height(values)
        finite = np.isfinite(heights)
        tops = self._tops_for(self.mean(points[finite]), heights[finite])
        return [(replace(self.target, top=top), log_prior) for top, log_prior in tops]

    def quantiles(self, points: Array) -> Array:
        """Returns the quantiles `(n,)` of the predictions for points, 0 the best, among those for the other tasks' candidates."""
        return quantiles(self.mean(points), self.means)

    def _tops_for(self, mean: Array, heights: Array) -> list[tuple[float, float]]:
        """Returns heights from which drops may be measured, and the logarithm of the prior probability of each."""
        if np.isfinite(self.target.top) or not len(heights):
            return [(float(np.nan_to_num(self.target.top)), 0.0)]
        best, (usual, spread) = float(heights.max()), self.tops
        implied = float(np.median(heights + self.target.drop(mean)))
        tops = sorted({max(best, top) for top in (best, implied, usual)})
        return [(top, -0.5 * ((top - usual) / spread) ** 2 if np.isfinite(usual) else 0.0) for top in tops]

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
    """Learns the prior from the other tasks' rows; None if there are none, all of each task are equal, or they do not predict each other."""
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
    weights = pooled.weights(kernel, spread)
    predictions = _predictions(points, values, kernel, spread)
    means = kernel(pooled.points, pooled.points) @ weights
    if not predict_each_other([p.predicted for p in predictions], [p.values for p in predictions]):
        return None
    at = [quantiles(p.predicted, p.predicted) for p in predictions]
    calibration = Calibration.of(at, [p.values for p in predictions])
    collapses = None
    if predictions and not scale.ratio:
        limit = _COLLAPSED * float(np.median([np.ptp(task.drops) for task in tasks]))
        collapses = Collapses.of(limit, at, [target.drop(p.values) for p in predictions])
    departures, noise = _departures(encoding, predictions)
    return TaskPrior(
        target, noise, pooled.points, weights, kernel, departures, means,
        calibration, collapses, _tops(scale, tasks),
    )  # fmt: skip


def _tops(scale: Scale, tasks: Sequence[Task]) -> tuple[float, float]:
    """Returns the mean and standard deviation of the heights of the tasks' best rows.

    The deviation is at least a tenth of a task's usual range, for few tasks say little of it. Where values are compared by
    their ratio, how expensive another network is says nothing: the mean is then minus infinity.
    """
    if scale.ratio:
        return -np.inf, 1.0
    bests = np.array([task.best for task in tasks])
    usual = float(np.median([np.ptp(task.drops) for task in tasks]))
    return float(bests.mean()), max(float(bests.std()), _LEAST_SPREAD * usual) or 1.0


@dataclass(frozen=True)
class _Predicted:
    """A task's rows, predicted from the other tasks.

    Attributes:
        points: `(n, n_knobs)`, different ones.
        values: `(n,)`, on the common scale.
        repeats: `(n,)`, how many measurements each value is the mean of.
        predicted: `(n,)`.
    """

    points: Array
    values: Array
    repeats: Array
    predicted: Array


def _predictions(
    points: Sequence[Array], values: Sequence[Array], kernel: Kernel, spread: float
) -> list[_Predicted]:
    """Predicts each task from the rest of them; with one task there is nothing to predict from.

    Args:
        points: The tasks' candidates, `(n_task, n_knobs)` each.
        values: Their values on the common scale, `(n_task,)` each.
        kernel: Kernel of the prior mean.
        spread: Noise variance of the prior mean, differences between tasks included.
    """
    found = []
    most = max(_MAX_FITTED // len(points), 20)
    for at in range(len(points) if len(points) > 1 else 0):
        others = _Pooled.of([*points[:at], *points[at + 1 :]], [*values[:at], *values[at + 1 :]])
        others = others.subsampled(_MAX_POINTS)
        some = _Pooled.of([points[at]], [values[at]]).subsampled(most)
        predicted = kernel(some.points, others.points) @ others.weights(kernel, spread)
        found.append(_Predicted(some.points, some.values, some.repeats, predicted))
    return found


def _departures(encoding: Encoding, predictions: Sequence[_Predicted]) -> tuple[Kernel, float]:
    """Returns the kernel of the departures of tasks from what the others predict, and their noise variance."""
    if not predictions:
        return unfitted(encoding)
    blocks = [
        Block(p.points, p.values - p.predicted, p.repeats, np.zeros(len(p.values))) for p in predictions
    ]
    return fitted(encoding, blocks, offset=0.0)

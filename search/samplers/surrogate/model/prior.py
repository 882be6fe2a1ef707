"""What other tasks say of candidates before the first trial."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import SamplerContext
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.kernel import Block, Kernel, fitted, unfitted
from search.samplers.surrogate.model.tasks import RankedDrop, ranked, scored, tasks_of

Array = NDArray[np.float64]
_MAX_POINTS = 500  # of other tasks together; more are thinned out
_MAX_FITTED = 250  # points that kernels are fitted to
_SHARED = 0.1  # how much of a surprise is taken to concern other candidates as well


@dataclass(frozen=True)
class _Pooled:
    """Rows of several tasks, those of equal points joined: `(n, n_knobs)`, their means `(n,)`, their numbers `(n,)`."""

    points: Array
    values: Array
    repeats: Array
    scatter: float

    @classmethod
    def of(cls, points: Sequence[Array], values: Sequence[Array]) -> "_Pooled":
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
        """Returns at most so many points: the best half, and every so manieth of the rest."""
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
        """Returns `(n,)`: the posterior mean at points `x` is `kernel(x, points) @ weights`."""
        from scipy.linalg import solve

        spread = kernel(self.points, self.points) + np.diag(noise / self.repeats + 1e-8)
        return np.asarray(solve(spread, self.values, assume_a="pos"))


@dataclass(frozen=True)
class TaskPrior:
    """What is expected of a task that resembles others.

    The expectation is the posterior mean of a Gaussian process to which the task of a row is but noise. How far a task
    departs from it, and for which candidates alike, is learned from the departures of each of the other tasks from what
    the rest of them said (as in HyperBO, Wang et al. 2021, arXiv 2109.08215). Departures have heavy tails: a collapse of
    one candidate says less of others than Gaussian departures would. So only a part is shared.

    Attributes:
        target: The scale.
        noise: Variance of a single value.
        points: `(n, n_knobs)`, the other tasks' candidates.
        weights: `(n,)`, what each counts for.
        kernel: Between them and those of this task.
        departures: Kernel of the departures.
    """

    target: RankedDrop
    noise: float
    points: Array
    weights: Array
    kernel: Kernel
    departures: Kernel

    def target_for(self, values: Array) -> RankedDrop:
        """Returns the scale; drops are from the best of the values `(n,)` if no uncompressed model is known."""
        if np.isfinite(self.target.top):
            return self.target
        heights = self.target.scale.height(values)
        heights = heights[np.isfinite(heights)]
        return replace(self.target, top=float(heights.max(initial=-np.inf)) if len(heights) else 0.0)

    def mean(self, points: Array) -> Array:
        """Returns `(n,)`."""
        return np.asarray(self.kernel(points, self.points) @ self.weights)

    def covariance(self, a: Array, b: Array) -> Array:
        """Returns `(n, m)`."""
        whole = self.departures(a, b)
        own = whole >= self.departures.total * (1 - 1e-9)  # the very same candidate
        return np.where(own, whole, _SHARED * whole)

    def variance(self, points: Array) -> Array:
        """Returns `(n,)`."""
        return np.full(len(points), self.departures.total)


def informed_prior(context: SamplerContext, encoding: Encoding) -> TaskPrior | None:
    """Learns from the other tasks' rows; None if there are none, or they are all the same."""
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
    """Returns the kernel of what is left of each task after the others' expectation, and its noise."""
    if len(points) == 1:
        return unfitted(encoding)
    blocks = []
    most = max(_MAX_FITTED // len(points), 20)
    for at, (where, what) in enumerate(zip(points, values, strict=True)):
        others = _Pooled.of([*points[:at], *points[at + 1 :]], [*values[:at], *values[at + 1 :]])
        some = _Pooled.of([where], [what]).subsampled(most)
        others = others.subsampled(_MAX_POINTS)
        left = some.values - kernel(some.points, others.points) @ others.weights(kernel, spread)
        blocks.append(Block(some.points, left, some.repeats, np.zeros(len(left))))
    return fitted(encoding, blocks, offset=0.0)

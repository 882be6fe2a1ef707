"""The gain that a sampler's model predicts for more trials."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study

from search.samplers.acquisition.boxes import Array
from search.samplers.acquisition.improvement import chance_above, expected_excess, expected_improvement, sobol

CONFIDENCE = 0.95
_POINTS = 2048  # thresholds, or points of the objective space, at which probabilities are evaluated
_DRAWS = 256  # samples of the candidates' outcomes


@dataclass(frozen=True)
class Gain:
    """The improvement of the best of some candidates over the results so far.

    Attributes:
        expected: Its expectation, at least 0.
        bound: Its 95 % quantile under the model.
    """

    expected: float
    bound: float


@dataclass(frozen=True)
class Forecast:
    """The predicted gain of another `k` trials.

    Attributes:
        k: Number of trials.
        gain: Improvement over the best result, in the unit of the objective; or of the front's hypervolume,
            as a share of its present one.
        axis: Position of the objective; None for the hypervolume.
    """

    k: int
    gain: Gain
    axis: int | None = 0


@runtime_checkable
class Forecasts(Protocol):
    """A sampler that can predict the gain of more trials."""

    def forecast(self, study: Study, k: int) -> Forecast | None:
        """Returns the predicted gain of another `k` trials; None while there are too few results to predict it."""


def expected_gain(
    means: Array, stds: Array, best: float, k: int, feasible: NDArray[np.float64] | None = None
) -> Gain:
    """Returns the gain over the best result by the `k` candidates with the highest expected improvement.

    Candidates are taken as independent normals; errors of neighbours are correlated, so the true gain is
    rather less. Exact up to the step of the integral, E max(0, max Y - best) = integral of P(max Y > t) from
    best.

    Args:
        means: `(n,)`, predicted objective, to be maximised.
        stds: `(n,)`, standard deviations; 0 means that the value is known.
        best: The best feasible result; minus infinity gives an infinite gain.
        k: How many trials.
        feasible: `(n,)`, probabilities that the constraints hold; None without constraints.
    """
    if not len(means) or k < 1:
        return Gain(0.0, 0.0)
    if best == -np.inf:
        return Gain(np.inf, np.inf)
    likely = np.ones(len(means)) if feasible is None else feasible
    improvements = expected_excess(means, stds, np.array(best)) * likely
    # where the expected improvement is 0 for all, the order does not matter
    top = np.argsort(-improvements, kind="stable")[:k]
    means, stds, likely = means[top], stds[top], likely[top]
    highest = max(float((means + 6 * stds).max()), best)
    gains = np.linspace(0.0, highest - best, _POINTS)
    none_above = np.prod(1 - likely * chance_above(means, stds, best + gains[:, None], strictly=True), axis=1)
    expected = float(np.trapezoid(1 - none_above, gains))
    return Gain(expected, float(gains[int(np.argmax(none_above >= CONFIDENCE))]))


def expected_volume_gain(
    means: Array,
    stds: Array,
    front: Array,
    reference: Array,
    k: int,
    rng: np.random.Generator,
    feasible: NDArray[np.float64] | None = None,
) -> Gain | None:
    """Returns what `k` trials would add to the front's hypervolume, as a share of its present one.

    The candidates are the `k` with the highest expected improvement, taken as independent; their joint gain
    is sampled.

    Args:
        means: `(n, d)`, predicted objectives, to be maximised.
        stds: `(n, d)`, standard deviations; 0 means that the value is known.
        front: `(m, d)`, feasible results.
        reference: `(d,)`, reference point of the hypervolume.
        k: How many trials.
        rng: Source of the draws.
        feasible: `(n,)`, probabilities that the constraints hold; None without constraints.

    Returns:
        The gain, or None if no point of the front is above the reference point.
    """
    above = front[(front > reference).all(axis=1)]
    if not len(above):
        return None
    if not len(means) or k < 1:
        return Gain(0.0, 0.0)
    likely = np.ones(len(means)) if feasible is None else feasible
    improvements = expected_improvement(means, stds, above, reference, rng) * likely
    top = np.argsort(-improvements, kind="stable")[:k]
    ceiling = np.maximum(above.max(axis=0), (means[top] + 3 * stds[top]).max(axis=0))
    points = reference + sobol(len(reference), _POINTS, rng) * (ceiling - reference)
    dominated = (above[:, None] >= points).all(axis=2).any(axis=0)
    normal = rng.standard_normal((_DRAWS, len(top), means.shape[1]))
    drawn = means[top] + stds[top] * normal
    drawn[rng.random((_DRAWS, len(top))) >= likely[top]] = -np.inf
    n_dominated = int(dominated.sum())
    added = _share_dominated(drawn, points[~dominated]) * ((len(points) - n_dominated) / max(1, n_dominated))
    return Gain(float(added.mean()), float(np.quantile(added, CONFIDENCE)))


def _share_dominated(drawn: Array, points: Array) -> Array:
    """Returns `(n_draws,)`, the share of the points that any candidate of a draw dominates.

    Args:
        drawn: `(n_draws, k, d)`, outcomes of the `k` candidates.
        points: `(n_points, d)`.
    """
    if not len(points):
        return np.zeros(len(drawn))
    dominated = np.zeros((len(drawn), len(points)), dtype=np.bool_)
    for candidate in range(drawn.shape[1]):
        reached = np.ones_like(dominated)
        for axis in range(points.shape[1]):
            reached &= drawn[:, candidate, axis, None] >= points[:, axis]
        dominated |= reached
    return np.asarray(dominated.mean(axis=1))

"""What more trials would gain, as far as a sampler's model can tell."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study

from search.samplers.acquisition.boxes import Array
from search.samplers.acquisition.improvement import chance_above, expected_excess, expected_improvement, sobol

CONFIDENCE = 0.95
_POINTS = 2048  # thresholds or points of space at which probabilities are taken
_DRAWS = 256  # of what the candidates may come to


@dataclass(frozen=True)
class Gain:
    """What the best of some candidates would add to what is known.

    Attributes:
        expected: Its expectation, at least 0.
        bound: With 95 % probability it is no more, according to the model.
    """

    expected: float
    bound: float


@dataclass(frozen=True)
class Forecast:
    """What another `k` trials would gain.

    Attributes:
        k: Number of trials.
        gain: Over the best, in the unit of the objective; or of the front's hypervolume, as a share of what it has.
        axis: Position of the objective; None for the hypervolume.
    """

    k: int
    gain: Gain
    axis: int | None = 0


@runtime_checkable
class Forecasts(Protocol):
    """A sampler that can tell what more trials would gain."""

    def forecast(self, study: Study, k: int) -> Forecast | None:
        """Returns what another `k` trials would gain; None while the model is not to be trusted with that."""


def expected_gain(
    means: Array, stds: Array, best: float, k: int, feasible: NDArray[np.float64] | None = None
) -> Gain:
    """Returns what the best of the `k` most promising candidates would gain over the best known.

    They are taken as independent normals: neighbours err alike, so the true gain is rather less. Exact but for
    the step of the integral, E max(0, max Y - best) = integral of P(max Y > t) from best.

    Args:
        means: `(n,)`, predicted objective, to be maximised.
        stds: `(n,)`, standard deviations; 0 means certain.
        best: The best feasible value known; minus infinity gives an infinite gain.
        k: How many trials.
        feasible: `(n,)`, probabilities that the constraints hold; None where nothing constrains.
    """
    if not len(means) or k < 1:
        return Gain(0.0, 0.0)
    if best == -np.inf:
        return Gain(np.inf, np.inf)
    likely = np.ones(len(means)) if feasible is None else feasible
    worth = expected_excess(means, stds, np.array(best)) * likely
    # by expected improvement; where that is 0 throughout, the rest does not matter
    top = np.argsort(-worth, kind="stable")[:k]
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
    """Returns what `k` trials would add to the front's hypervolume, as a share of what it has.

    The candidates are the `k` with the highest expected improvement, taken as independent; what they add together is sampled.

    Args:
        means: `(n, d)`, predicted objectives, to be maximised.
        stds: `(n, d)`, standard deviations; 0 means certain.
        front: `(m, d)`, feasible candidates known.
        reference: `(d,)`, what is worth nothing.
        k: How many trials.
        rng: Source of the draws.
        feasible: `(n,)`, probabilities that the constraints hold; None where nothing constrains.

    Returns:
        The gain, or None if the front has no volume yet.
    """
    above = front[(front > reference).all(axis=1)]
    if not len(above):
        return None
    if not len(means) or k < 1:
        return Gain(0.0, 0.0)
    likely = np.ones(len(means)) if feasible is None else feasible
    worth = expected_improvement(means, stds, above, reference, rng) * likely
    top = np.argsort(-worth, kind="stable")[:k]
    ceiling = np.maximum(above.max(axis=0), (means[top] + 3 * stds[top]).max(axis=0))
    points = reference + sobol(len(reference), _POINTS, rng) * (ceiling - reference)
    won = (above[:, None] >= points).all(axis=2).any(axis=0)
    normal = rng.standard_normal((_DRAWS, len(top), means.shape[1]))
    drawn = means[top] + stds[top] * normal
    drawn[rng.random((_DRAWS, len(top))) >= likely[top]] = -np.inf
    n_won = int(won.sum())
    added = _share_won(drawn, points[~won]) * ((len(points) - n_won) / max(1, n_won))
    return Gain(float(added.mean()), float(np.quantile(added, CONFIDENCE)))


def _share_won(drawn: Array, points: Array) -> Array:
    """Returns, for each draw of `(n_draws, k, d)`, the share of the points that any of its candidates dominates."""
    if not len(points):
        return np.zeros(len(drawn))
    won = np.zeros((len(drawn), len(points)), dtype=np.bool_)
    for candidate in range(drawn.shape[1]):
        reached = np.ones_like(won)
        for axis in range(points.shape[1]):
            reached &= drawn[:, candidate, axis, None] >= points[:, axis]
        won |= reached
    return np.asarray(won.mean(axis=1))

"""How much a trial of each candidate promises: one number a candidate."""

import numpy as np
from numpy.typing import NDArray

from search.samplers.acquisition.improvement import (
    constrained_improvement,
    log_expected_excess,
    reference_point,
)
from search.samplers.surrogate.model.gaussian_process import Posterior
from search.samplers.surrogate.model.history import History
from search.samplers.surrogate.prediction import Prediction

Array = NDArray[np.float64]


def acquisition_value(
    view: Prediction,
    history: History,
    rng: np.random.Generator,
    also: NDArray[np.intp] | None = None,
    floors: Array | None = None,
) -> Array:
    """Returns `(n,)`: expected improvement times the probability of being feasible, or its logarithm.

    Args:
        view: What is expected of the candidates.
        history: What was measured: its best feasible rows are to be improved on.
        rng: Draws samples where there are too many objectives for a closed form.
        also: Candidates that are to be improved on besides, as what they are expected to be.
        floors: `(n_objectives,)`, below which values are worth nothing, higher is better; NaN where unknown.
    """
    measured = on_scale(view, history.values[history.full & history.feasible])
    means = np.stack([posterior.mean for posterior in view.posteriors], axis=1)
    if also is not None:
        measured = np.concatenate([measured, means[also]])
    if len(view.posteriors) == 1:
        return _single(view.posteriors[0], view.log_feasible, measured[:, 0])
    stds = np.stack([posterior.std for posterior in view.posteriors], axis=1)
    reference = reference_of(view, measured, floors)
    gains = constrained_improvement(means, stds, measured, reference, np.exp(view.log_feasible), rng)
    return np.where(np.isneginf(view.log_feasible), -np.inf, gains)  # not even where nothing gains


def on_scale(view: Prediction, values: Array) -> Array:
    """Returns values `(n, n_objectives)`, higher is better, on the scales of the targets."""
    return np.stack([target(column) for target, column in zip(view.targets, values.T, strict=True)], axis=1)


def reference_of(view: Prediction, measured: Array, floors: Array | None) -> Array:
    """Returns what counts as worth nothing `(n_objectives,)`, on the scales of the targets: for the study itself as well.

    Args:
        view: What is expected of the candidates.
        measured: `(m, n_objectives)`, on these scales.
        floors: As in `acquisition_value`.
    """
    means = np.stack([posterior.mean for posterior in view.posteriors], axis=1)
    known = None if floors is None else on_scale(view, floors[None])[0]
    return reference_point(np.concatenate([measured, means]), floors=known)


def _single(posterior: Posterior, log_feasible: Array, measured: Array) -> Array:
    if len(measured):
        return log_expected_excess(posterior.mean, posterior.std, measured.max()) + log_feasible
    # nothing to improve on yet: first of all a candidate that counts
    return posterior.mean + log_feasible

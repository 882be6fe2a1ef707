"""The acquisition function: expected improvement times the probability of feasibility."""

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
    predicted: Prediction,
    history: History,
    rng: np.random.Generator,
    incumbents: NDArray[np.intp] | None = None,
    known_reference: Array | None = None,
) -> Array:
    """Returns `(n,)`, expected improvement times probability of feasibility; its logarithm for one objective.

    Before any feasible result with one objective, it is the predicted mean plus the logarithm of that
    probability.

    Args:
        predicted: Predictions for the candidates.
        history: Results of trials; the full, feasible ones are to be improved on.
        rng: Draws samples where there are too many objectives for a closed form.
        incumbents: Positions of candidates that are to be improved on besides, at their predicted means.
        known_reference: `(n_objectives,)`, coordinates of the reference point that are known, higher is
            better; NaN where unknown.
    """
    measured = on_scale(predicted, history.values[history.full & history.feasible])
    means = np.stack([posterior.mean for posterior in predicted.posteriors], axis=1)
    if incumbents is not None:
        measured = np.concatenate([measured, means[incumbents]])
    if len(predicted.posteriors) == 1:
        return _single(predicted.posteriors[0], predicted.log_feasible, measured[:, 0])
    stds = np.stack([posterior.std for posterior in predicted.posteriors], axis=1)
    reference = reference_of(predicted, measured, known_reference)
    gains = constrained_improvement(means, stds, measured, reference, np.exp(predicted.log_feasible), rng)
    return np.where(
        np.isneginf(predicted.log_feasible), -np.inf, gains
    )  # the worst, even where every gain is 0


def on_scale(predicted: Prediction, values: Array) -> Array:
    """Returns values `(n, n_objectives)`, higher is better, on the scales of the targets."""
    return np.stack(
        [target(column) for target, column in zip(predicted.targets, values.T, strict=True)], axis=1
    )


def reference_of(predicted: Prediction, measured: Array, known_reference: Array | None) -> Array:
    """Returns the reference point of the hypervolume `(n_objectives,)`, on the scales of the targets.

    Args:
        predicted: Predictions for the candidates.
        measured: `(m, n_objectives)`, on these scales.
        known_reference: As in `acquisition_value`; the study's own hypervolume has the same coordinates.
    """
    means = np.stack([posterior.mean for posterior in predicted.posteriors], axis=1)
    scaled_reference = None if known_reference is None else on_scale(predicted, known_reference[None])[0]
    return reference_point(np.concatenate([measured, means]), known_reference=scaled_reference)


def _single(posterior: Posterior, log_feasible: Array, measured: Array) -> Array:
    if len(measured):
        return log_expected_excess(posterior.mean, posterior.std, measured.max()) + log_feasible
    # nothing to improve on yet: a feasible candidate comes first
    return posterior.mean + log_feasible

"""The forecast gain of more trials, from the predictions for the candidates that are left."""

import numpy as np
from numpy.typing import NDArray

from search.samplers.acquisition.gain import Forecast, Gain, expected_gain, expected_volume_gain
from search.samplers.surrogate.acquisition_value import on_scale, reference_of
from search.samplers.surrogate.model.history import History
from search.samplers.surrogate.prediction import Prediction

Array = NDArray[np.float64]
_MIN_ROWS = 3  # with fewer, the model's standard deviations are still those of its prior


def forecast(
    predicted: Prediction,
    history: History,
    k: int,
    rng: np.random.Generator,
    known_reference: Array | None = None,
) -> Forecast | None:
    """Returns what `k` more trials would gain; None with too few results to predict it.

    Args:
        predicted: Predictions for the candidates that are left.
        history: Results of trials.
        k: Number of trials.
        rng: Draws outcomes where there are several objectives.
        known_reference: As in `acquisition_value`.
    """
    values = history.values[history.full & history.feasible]
    if len(values) < _MIN_ROWS:
        return None
    measured = on_scale(predicted, values)
    feasible = np.exp(predicted.log_feasible)
    if len(predicted.posteriors) == 1:
        posterior = predicted.posteriors[0]
        gain = expected_gain(posterior.mean, posterior.outcome_std, float(measured.max()), k, feasible)
        step = _step(measured[:, 0], values[:, 0])
        return None if step is None else Forecast(k, Gain(gain.expected * step, gain.bound * step))
    means = np.stack([posterior.mean for posterior in predicted.posteriors], axis=1)
    stds = np.stack([posterior.outcome_std for posterior in predicted.posteriors], axis=1)
    reference = reference_of(predicted, measured, known_reference)
    added = expected_volume_gain(means, stds, measured, reference, k, rng, feasible)
    return None if added is None else Forecast(k, added, None)


def _step(scores: Array, values: Array) -> float | None:
    """Returns the objective's unit per unit of the target's scale; None where all rows are equal.

    It is taken to be the mean slope from the median row to the best, an upper bound: scales are compressed so
    that steps in the objective's unit become smaller towards the best.

    Args:
        scores: `(m,)`, on the target's scale.
        values: `(m,)`, in the objective's unit, higher is better.
    """
    below = values[values < values.max()]
    if not len(below):
        return None
    median = min(float(np.median(values)), float(below.max()))
    upper_half = values >= median
    rise = np.ptp(scores[upper_half])
    return float(np.ptp(values[upper_half]) / rise) if rise > 0 else None

"""What more trials would gain, by what is expected of the candidates that are left."""

import numpy as np
from numpy.typing import NDArray

from search.samplers.acquisition.gain import Forecast, Gain, expected_gain, expected_volume_gain
from search.samplers.surrogate.acquisition_value import on_scale, reference_of
from search.samplers.surrogate.model.history import History
from search.samplers.surrogate.prediction import Prediction

Array = NDArray[np.float64]
_FEWEST = 3  # rows, below which a model's doubts are only those that it began with


def forecast(
    view: Prediction, history: History, k: int, rng: np.random.Generator, floors: Array | None = None
) -> Forecast | None:
    """Returns what `k` more trials would gain; None where that cannot be told yet.

    Args:
        view: What is expected of the candidates that are left.
        history: What was measured.
        k: Number of trials.
        rng: Draws what several objectives may come to.
        floors: `(n_objectives,)`, below which values are worth nothing, higher is better; NaN where unknown.
    """
    values = history.values[history.full & history.feasible]
    if len(values) < _FEWEST:
        return None
    measured = on_scale(view, values)
    feasible = np.exp(view.log_feasible)
    if len(view.posteriors) == 1:
        posterior = view.posteriors[0]
        gain = expected_gain(posterior.mean, posterior.outcome_std, float(measured.max()), k, feasible)
        step = _step(measured[:, 0], values[:, 0])
        return None if step is None else Forecast(k, Gain(gain.expected * step, gain.bound * step))
    means = np.stack([posterior.mean for posterior in view.posteriors], axis=1)
    stds = np.stack([posterior.outcome_std for posterior in view.posteriors], axis=1)
    reference = reference_of(view, measured, floors)
    added = expected_volume_gain(means, stds, measured, reference, k, rng, feasible)
    return None if added is None else Forecast(k, added, None)


def _step(scores: Array, values: Array) -> float | None:
    """Returns what a step beyond the best is worth in the objective's unit; None where all rows are the same.

    That is taken to be no more than it was on the way from the middling row to the best: scales are compressed so that
    steps become smaller towards the best.
    """
    below = values[values < values.max()]
    if not len(below):
        return None
    middling = min(float(np.median(values)), float(below.max()))
    half = values >= middling
    rise = np.ptp(scores[half])
    return float(np.ptp(values[half]) / rise) if rise > 0 else None

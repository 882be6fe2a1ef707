"""How much a trial of each candidate promises: one number a candidate."""

import numpy as np
from numpy.typing import NDArray

from search.samplers.improvement import constrained_improvement, reference_point
from search.samplers.surrogate.acquisition import log_expected_improvement
from search.samplers.surrogate.history import History
from search.samplers.surrogate.model import Belief
from search.samplers.surrogate.outlook import Outlook

Array = NDArray[np.float64]


def promise(view: Outlook, history: History, rng: np.random.Generator) -> Array:
    """Returns `(n,)`: expected improvement times the probability of being feasible, or its logarithm.

    Args:
        view: What is expected of the candidates.
        history: What was measured: its best feasible rows are to be improved on.
        rng: Draws samples where there are too many objectives for a closed form.
    """
    done = history.full & history.feasible
    measured = np.stack(
        [target(column) for target, column in zip(view.targets, history.values[done].T, strict=True)], axis=1
    )
    if len(view.beliefs) == 1:
        return _single(view.beliefs[0], view.log_feasible, measured[:, 0])
    means = np.stack([belief.mean for belief in view.beliefs], axis=1)
    stds = np.stack([belief.std for belief in view.beliefs], axis=1)
    reference = reference_point(np.concatenate([measured, means]))
    gains = constrained_improvement(means, stds, measured, reference, np.exp(view.log_feasible), rng)
    return np.where(np.isneginf(view.log_feasible), -np.inf, gains)  # not even where nothing gains


def _single(belief: Belief, log_feasible: Array, measured: Array) -> Array:
    if len(measured):
        return log_expected_improvement(belief, float(measured.max())) + log_feasible
    # nothing to improve on yet: first of all a candidate that counts
    return belief.mean + log_feasible

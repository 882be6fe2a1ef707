"""The bandit's reward of a trial, in [0, 1]."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from search.samplers.pick_sampler import signs_of

Array = NDArray[np.float64]


def rewards(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> Array:
    """Returns the reward of each trial, `(n,)`, relative to the others.

    With one objective it is the value's position in the range so far, with several the mean of their ranks,
    scaled so that the worst is 0 and the best is 1. A trial that failed, was pruned, has a value that is not
    finite or violates a constraint gets 0. If all are equal, they get 0.5.

    Args:
        trials: The `n` finished trials.
        directions: The study's directions.
    """
    found = np.zeros(len(trials))
    good = [at for at, trial in enumerate(trials) if _is_good(trial)]
    if good:
        signs = signs_of(directions)
        values = np.array([trials[at].values for at in good]) * signs  # (n_good, n_objectives)
        scored = values if len(signs) == 1 else rankdata(values, axis=0)
        found[good] = _spread(scored).mean(axis=1)
    return found


def _is_good(trial: FrozenTrial) -> bool:
    if trial.state != TrialState.COMPLETE or not np.isfinite(trial.values).all():
        return False
    return all(excess <= 0 for excess in trial.constraints.values())


def _spread(values: Array) -> Array:
    """Scales each column to [0, 1]; a constant one becomes 0.5."""
    low, high = values.min(axis=0), values.max(axis=0)
    with np.errstate(over="ignore"):  # the range may exceed the largest float
        span = high - low
        places = np.divide(
            values - low, span, out=np.full_like(values, 0.5), where=(span > 0) & np.isfinite(span)
        )
    return np.asarray(places)

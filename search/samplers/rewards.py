"""What a trial was worth, as a number in [0, 1]."""

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

    One objective counts by its place in the range so far, several by the mean of their ranks, the worst 0 and the best 1.
    A trial that failed, was pruned, is not finite or breaks a constraint has earned 0. Where all are alike, they have
    earned a half.

    Args:
        trials: Finished ones.
        directions: Of the study.
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
    """Spreads each column over [0, 1]; a constant one is a half."""
    low, high = values.min(axis=0), values.max(axis=0)
    with np.errstate(over="ignore"):  # of a range beyond the largest number
        span = high - low
        places = np.divide(
            values - low, span, out=np.full_like(values, 0.5), where=(span > 0) & np.isfinite(span)
        )
    return np.asarray(places)

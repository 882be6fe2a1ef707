"""The posterior of the first objective where other tasks were measured: a mixture with and without what they say."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.surrogate.model.calibration import normal_log_probabilities
from search.samplers.surrogate.model.gaussian_process import Posterior, Rows, conditioned, mixture
from search.samplers.surrogate.model.learning import Learner, rows_of, subsampled
from search.samplers.surrogate.model.prior import TaskPrior
from search.samplers.surrogate.model.tasks import RankedDrop

Array = NDArray[np.float64]
_P_SIMILAR = 0.8  # prior probability that other tasks resemble this one
_P_MIN = 0.05  # posterior probability of that below which they are not used


@dataclass(frozen=True)
class Transferred:
    """What is known of the first objective.

    Attributes:
        posterior: Of the candidates, on the scale of `target`.
        target: The scale.
        weights: Posterior probability of each model by name.
    """

    posterior: Posterior
    target: RankedDrop
    weights: Mapping[str, float]


def transferred(
    learner: Learner,
    prior: TaskPrior,
    measured: tuple[Array, Array, Array],
    query: Array,
    pending: Array,
) -> Transferred | None:
    """Returns a mixture of the models with and without the other tasks, weighed by how well these predicted the trials so far.

    Args:
        learner: Fits the model without other tasks.
        prior: Learned from other tasks.
        measured: Points `(n, n_knobs)`, values `(n,)`, higher is better, NaN where nothing was measured, and their
            standard errors `(n,)`.
        query: `(m, n_knobs)`, the candidates.
        pending: `(p, n_knobs)`, candidates of running trials.

    Returns:
        None if the trials make it improbable that the other tasks resemble this one.
    """
    found = []
    for target, log_prior in prior.targets_for(*measured[:2]):
        rows = subsampled(rows_of(target, *measured))
        log_odds = _log_odds(learner, prior, target, rows)
        found.append((np.logaddexp(log_odds, 0.0) + log_prior, log_odds, target, rows))
    _, log_odds, target, rows = max(found, key=lambda each: each[0])
    p_similar = float(1 / (1 + np.exp(-log_odds)))
    if p_similar < _P_MIN:
        return None
    informed = conditioned(prior, rows, pending)(query)
    weights = {"knowledge": p_similar, "none": 1 - p_similar}
    if not len(rows):
        return Transferred(informed, target, weights)
    flat = learner.posterior_of("informed", rows, query, pending)
    return Transferred(mixture([informed, flat], [log_odds, 0.0]), target, weights)


def _log_odds(learner: Learner, prior: TaskPrior, target: RankedDrop, rows: Rows) -> float:
    """Returns the logarithm of how much more probable it is that the other tasks resemble this one than that they do not.

    Each trial but the first counts by whether it is better or worse than those before it (mean over these), and by whether
    it collapsed: the probability of that given what the other tasks predict, against its probability given the trials before.
    The first counts for nothing alone, so that one collapsed candidate does not turn the ranking around.
    """
    odds = float(np.log(_P_SIMILAR / (1 - _P_SIMILAR)))
    if len(rows) < 2:
        return odds
    predicted = prior.quantiles(rows.points)
    ratios = prior.calibration.log_probabilities(predicted, rows.values)
    ratios -= normal_log_probabilities(*learner.predicted_in_turn("informed", rows), rows.values)
    odds += sum(float(row[:at].mean()) for at, row in enumerate(ratios) if at)
    if prior.collapses is not None:
        odds += float(prior.collapses.log_ratios(predicted, target.drop(rows.values))[1:].sum())
    return odds

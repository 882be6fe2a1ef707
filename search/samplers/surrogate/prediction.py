"""What is expected of candidates: certain where it is known beforehand, learned otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.acquisition.improvement import log_chance_below
from search.samplers.candidates.context import Known, LowFidelityEvaluations, Params
from search.samplers.surrogate.low_fidelity import FidelityPosterior, FidelityPosteriors
from search.samplers.surrogate.model.gaussian_process import Posterior
from search.samplers.surrogate.model.history import History
from search.samplers.surrogate.model.learning import Learner, rows_of
from search.samplers.surrogate.model.multi_fidelity import Compressed
from search.samplers.surrogate.model.prior import TaskPrior
from search.samplers.surrogate.model.targets import Excess, LogDrop, NormalScores, Plain, Target
from search.samplers.surrogate.model.tasks import RankedDrop

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """What is expected of `n` candidates.

    Attributes:
        posteriors: Per objective what is expected, higher is better, on the scale of its target.
        targets: Per objective the scale: maps values (higher is better) to it.
        log_feasible: `(n,)`, logarithm of the probability that every constraint holds.
    """

    posteriors: Sequence[Posterior]
    targets: Sequence[Target]
    log_feasible: Array


@dataclass(frozen=True)
class Seen:
    """The history as points.

    Attributes:
        history: The rows.
        points: `(n, n_knobs)`.
        pending: `(p, n_knobs)`, candidates that are being measured.
        baselines: `(n_objectives,)`, what the uncompressed model has, higher is better; NaN where unknown, or of a cost.
    """

    history: History
    points: Array
    pending: Array
    baselines: Array


def nothing_known(n: int, n_objectives: int) -> Known:
    """Returns what is certain of `n` candidates where nothing is."""
    return Known(np.full((n, n_objectives), np.nan), {}, [str(i) for i in range(n)])


def known_of(
    low_fidelity: LowFidelityEvaluations | None, candidates: Sequence[Params], n_objectives: int
) -> Known:
    """Returns what is certain of candidates."""
    if low_fidelity is None or not len(candidates):
        return nothing_known(len(candidates), n_objectives)
    return low_fidelity.known(candidates)


def prediction(
    learner: Learner,
    seen: Seen,
    ahead: Array,
    known: Known,
    signs: Array,
    prior: TaskPrior | None = None,
    fidelity_posteriors: FidelityPosteriors | None = None,
) -> Prediction:
    """Joins what is certain and what is learned.

    Args:
        learner: Learns.
        seen: What was measured.
        ahead: `(n, n_knobs)`, the candidates.
        known: What is certain of them.
        signs: `(n_objectives,)`, -1 where an objective is to be minimised.
        prior: What other tasks say of the first objective; None if nothing.
        fidelity_posteriors: What looks at the candidates let believe; None without looks.
    """
    posteriors, targets = [], []
    fidelity_posteriors = fidelity_posteriors or {}
    for axis, sign in enumerate(signs):
        certain = sign * known.values[:, axis]
        posterior, target = _objective(
            axis, learner, seen, ahead, certain, None if axis else prior, fidelity_posteriors.get(axis)
        )
        posteriors.append(_certain(posterior, target(certain)))
        targets.append(target)
    return Prediction(posteriors, targets, _log_feasible(learner, seen, ahead, known, fidelity_posteriors))


def _objective(
    axis: int,
    learner: Learner,
    seen: Seen,
    ahead: Array,
    certain: Array,
    prior: TaskPrior | None,
    fidelity_posterior: FidelityPosterior | None,
) -> tuple[Posterior, Target]:
    """Returns what is learned of an objective, and on which scale."""
    values, errors = seen.history.values[:, axis], seen.history.errors[:, axis]
    several = seen.history.values.shape[1] > 1
    target = _target(np.concatenate([values, certain]), several, float(seen.baselines[axis]))
    if np.isfinite(certain).all():
        return Posterior(np.zeros(len(ahead)), np.zeros(len(ahead))), target
    if fidelity_posterior is not None:
        if several:
            return _rescaled(fidelity_posterior.posterior, fidelity_posterior.scale, target), target
        return fidelity_posterior.posterior, fidelity_posterior.scale
    if prior is not None:
        ranks = prior.target_for(values)
        posterior = learner.informed(rows_of(ranks, seen.points, values, errors), ahead, seen.pending)
        if posterior is not None:
            return (_rescaled(posterior, ranks, target), target) if several else (posterior, ranks)
    return learner.posterior_of(
        axis, rows_of(target, seen.points, values, errors), ahead, seen.pending
    ), target


def _target(values: Array, several: bool, baseline: float) -> Target:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Plain(0.0, 1.0)
    if several:  # a front is spread out in the objectives themselves, so is what is learned for it
        return Plain.of(finite)
    return LogDrop.of(finite, baseline) if np.isfinite(baseline) else NormalScores.of(finite)


def _rescaled(posterior: Posterior, ranks: RankedDrop | Compressed, scale: Target) -> Posterior:
    """Returns the belief on another scale, to the first order."""
    up, down = (scale(ranks.inverse(posterior.mean + sign * posterior.std)) for sign in (1.0, -1.0))
    std = np.abs(up - down) / 2
    own = posterior.own * (std / np.maximum(posterior.std, 1e-9)) ** 2
    return Posterior(scale(ranks.inverse(posterior.mean)), std, own)


def _certain(posterior: Posterior, values: Array) -> Posterior:
    sure = np.isfinite(values)
    own = np.where(sure, 0.0, posterior.own)
    return Posterior(np.where(sure, values, posterior.mean), np.where(sure, 0.0, posterior.std), own)


def _log_feasible(
    learner: Learner, seen: Seen, ahead: Array, known: Known, fidelity_posteriors: FidelityPosteriors
) -> Array:
    total = np.zeros(len(ahead))
    for name, fidelity_posterior in fidelity_posteriors.items():
        if isinstance(name, str):
            certain = known.excesses.get(name, np.full(len(ahead), np.nan))
            limit = float(fidelity_posterior.scale(np.zeros(1))[0])
            chance = log_chance_below(
                -fidelity_posterior.posterior.mean, fidelity_posterior.posterior.std, -limit
            )
            total += np.where(np.isfinite(certain), 0.0, chance)
    for name, excesses in seen.history.excesses.items():
        if name in fidelity_posteriors:
            continue
        certain = known.excesses.get(name, np.full(len(ahead), np.nan))
        finite = excesses[np.isfinite(excesses)]
        if np.isfinite(certain).all() or not len(finite):
            continue
        scale = Excess.of(finite)
        rows = rows_of(scale, seen.points, excesses, np.zeros(len(excesses)))
        posterior = learner.posterior_of(name, rows, ahead, seen.pending)
        chance = log_chance_below(posterior.mean, posterior.std, 0.0)
        total += np.where(np.isfinite(certain), 0.0, chance)
    for certain in known.excesses.values():
        total = np.where(certain > 0, -np.inf, total)
    return total

"""What is expected of candidates: certain where it is known beforehand, learned otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.samplers.acquisition.improvement import log_chance_below
from search.samplers.candidates.context import Known, Looks, Params
from search.samplers.surrogate.low_fidelity import Sight, Sights
from search.samplers.surrogate.model.gaussian_process import Belief
from search.samplers.surrogate.model.history import History
from search.samplers.surrogate.model.learning import Learner, rows_of
from search.samplers.surrogate.model.multi_fidelity import Compressed
from search.samplers.surrogate.model.prior import TaskPrior
from search.samplers.surrogate.model.targets import Excess, LogDrop, NormalScores, Plain, Target
from search.samplers.surrogate.model.tasks import RankedDrop

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outlook:
    """What is expected of `n` candidates.

    Attributes:
        beliefs: Per objective what is expected, higher is better, on the scale of its target.
        targets: Per objective the scale: maps values (higher is better) to it.
        log_feasible: `(n,)`, logarithm of the probability that every constraint holds.
    """

    beliefs: Sequence[Belief]
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


def known_of(looks: Looks | None, candidates: Sequence[Params], n_objectives: int) -> Known:
    """Returns what is certain of candidates."""
    if looks is None or not len(candidates):
        return nothing_known(len(candidates), n_objectives)
    return looks.known(candidates)


def outlook(
    learner: Learner,
    seen: Seen,
    ahead: Array,
    known: Known,
    signs: Array,
    prior: TaskPrior | None = None,
    sights: Sights | None = None,
) -> Outlook:
    """Joins what is certain and what is learned.

    Args:
        learner: Learns.
        seen: What was measured.
        ahead: `(n, n_knobs)`, the candidates.
        known: What is certain of them.
        signs: `(n_objectives,)`, -1 where an objective is to be minimised.
        prior: What other tasks say of the first objective; None if nothing.
        sights: What looks at the candidates let believe; None without looks.
    """
    beliefs, targets = [], []
    sights = sights or {}
    for axis, sign in enumerate(signs):
        certain = sign * known.values[:, axis]
        belief, target = _objective(
            axis, learner, seen, ahead, certain, None if axis else prior, sights.get(axis)
        )
        beliefs.append(_certain(belief, target(certain)))
        targets.append(target)
    return Outlook(beliefs, targets, _log_feasible(learner, seen, ahead, known, sights))


def _objective(
    axis: int,
    learner: Learner,
    seen: Seen,
    ahead: Array,
    certain: Array,
    prior: TaskPrior | None,
    sight: Sight | None,
) -> tuple[Belief, Target]:
    """Returns what is learned of an objective, and on which scale."""
    values, errors = seen.history.values[:, axis], seen.history.errors[:, axis]
    several = seen.history.values.shape[1] > 1
    target = _target(np.concatenate([values, certain]), several, float(seen.baselines[axis]))
    if np.isfinite(certain).all():
        return Belief(np.zeros(len(ahead)), np.zeros(len(ahead))), target
    if sight is not None:
        if several:
            return _rescaled(sight.belief, sight.scale, target), target
        return sight.belief, sight.scale
    if prior is not None:
        ranks = prior.target_for(values)
        belief = learner.informed(rows_of(ranks, seen.points, values, errors), ahead, seen.pending)
        if belief is not None:
            return (_rescaled(belief, ranks, target), target) if several else (belief, ranks)
    return learner.believe(axis, rows_of(target, seen.points, values, errors), ahead, seen.pending), target


def _target(values: Array, several: bool, baseline: float) -> Target:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Plain(0.0, 1.0)
    if several:  # a front is spread out in the objectives themselves, so is what is learned for it
        return Plain.of(finite)
    return LogDrop.of(finite, baseline) if np.isfinite(baseline) else NormalScores.of(finite)


def _rescaled(belief: Belief, ranks: RankedDrop | Compressed, scale: Target) -> Belief:
    """Returns the belief on another scale, to the first order."""
    up, down = (scale(ranks.inverse(belief.mean + sign * belief.std)) for sign in (1.0, -1.0))
    std = np.abs(up - down) / 2
    own = belief.own * (std / np.maximum(belief.std, 1e-9)) ** 2
    return Belief(scale(ranks.inverse(belief.mean)), std, own)


def _certain(belief: Belief, values: Array) -> Belief:
    sure = np.isfinite(values)
    own = np.where(sure, 0.0, belief.own)
    return Belief(np.where(sure, values, belief.mean), np.where(sure, 0.0, belief.std), own)


def _log_feasible(learner: Learner, seen: Seen, ahead: Array, known: Known, sights: Sights) -> Array:
    total = np.zeros(len(ahead))
    for name, sight in sights.items():
        if isinstance(name, str):
            certain = known.excesses.get(name, np.full(len(ahead), np.nan))
            limit = float(sight.scale(np.zeros(1))[0])
            chance = log_chance_below(-sight.belief.mean, sight.belief.std, -limit)
            total += np.where(np.isfinite(certain), 0.0, chance)
    for name, excesses in seen.history.excesses.items():
        if name in sights:
            continue
        certain = known.excesses.get(name, np.full(len(ahead), np.nan))
        finite = excesses[np.isfinite(excesses)]
        if np.isfinite(certain).all() or not len(finite):
            continue
        scale = Excess.of(finite)
        rows = rows_of(scale, seen.points, excesses, np.zeros(len(excesses)))
        belief = learner.believe(name, rows, ahead, seen.pending)
        chance = log_chance_below(belief.mean, belief.std, 0.0)
        total += np.where(np.isfinite(certain), 0.0, chance)
    for certain in known.excesses.values():
        total = np.where(certain > 0, -np.inf, total)
    return total

"""Predicted objectives and feasibility of candidates: known values are exact, others are learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.samplers.acquisition.improvement import log_chance_below
from search.samplers.candidates.context import Known, LowFidelityEvaluations, Params
from search.samplers.surrogate.low_fidelity import FidelityPosterior, FidelityPosteriors
from search.samplers.surrogate.model.gaussian_process import Posterior, mixture
from search.samplers.surrogate.model.history import History
from search.samplers.surrogate.model.learning import Learner, rows_of, subsampled
from search.samplers.surrogate.model.multi_fidelity import Compressed
from search.samplers.surrogate.model.prior import TaskPrior
from search.samplers.surrogate.model.targets import Excess, LogDrop, NormalScores, Plain, Shortfall, Target
from search.samplers.surrogate.model.tasks import RankedDrop
from search.samplers.surrogate.model.transfer import Transferred, transferred

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predictions for `n` candidates.

    Attributes:
        posteriors: Per objective the posterior of the candidates' values, higher is better, on the scale of
            its target.
        targets: Per objective the map from values (higher is better) to that scale.
        log_feasible: `(n,)`, logarithm of the probability that every constraint holds.
        weights: Where the first objective is predicted with other tasks' measurements, the probability that these resemble
            this task (`knowledge`), and that they do not (`none`).
    """

    posteriors: Sequence[Posterior]
    targets: Sequence[Target]
    log_feasible: Array
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedHistory:
    """The study's history with its candidates encoded as points.

    Attributes:
        history: The `n` rows: measured values, standard errors and constraint excesses.
        points: `(n, n_knobs)`, the rows' candidates.
        pending: `(p, n_knobs)`, candidates of running trials.
        baselines: `(n_objectives,)`, the uncompressed model's value of each objective to be maximised; NaN
            where it is unknown, and for objectives to be minimised.
    """

    history: History
    points: Array
    pending: Array
    baselines: Array


def nothing_known(n: int, n_objectives: int) -> Known:
    """Returns the `Known` of `n` candidates without known values: all NaN, every key different."""
    return Known(np.full((n, n_objectives), np.nan), {}, [str(i) for i in range(n)])


def known_of(
    low_fidelity: LowFidelityEvaluations | None, candidates: Sequence[Params], n_objectives: int
) -> Known:
    """Returns the values that are known of candidates without a trial; none without low-fidelity evaluations."""
    if low_fidelity is None or not len(candidates):
        return nothing_known(len(candidates), n_objectives)
    return low_fidelity.known(candidates)


def prediction(
    learner: Learner,
    encoded: EncodedHistory,
    query: Array,
    known: Known,
    signs: Array,
    prior: TaskPrior | None = None,
    fidelity_posteriors: FidelityPosteriors | None = None,
) -> Prediction:
    """Joins values that are known beforehand with those that are learned.

    Args:
        learner: Fits Gaussian processes to the history.
        encoded: The history.
        query: `(n, n_knobs)`, the candidates to predict.
        known: Their values that are known beforehand.
        signs: `(n_objectives,)`, -1 where an objective is to be minimised.
        prior: The prior of the first objective learned from other tasks; None if there is none.
        fidelity_posteriors: Posteriors of the candidates from low-fidelity evaluations; None without those.
    """
    posteriors, targets = [], []
    fidelity_posteriors = fidelity_posteriors or {}
    weights: Mapping[str, float] = {}
    for axis, sign in enumerate(signs):
        certain = sign * known.values[:, axis]
        informed = None
        is_learned = axis not in fidelity_posteriors and not np.isfinite(certain).all()
        if prior is not None and axis == 0 and is_learned:
            informed = _informed(learner, encoded, query, prior)
            weights = {"knowledge": 0.0, "none": 1.0} if informed is None else informed.weights
        posterior, target = _objective(
            axis, learner, encoded, query, certain, informed, fidelity_posteriors.get(axis)
        )
        posteriors.append(_certain(posterior, target(certain)))
        targets.append(target)
    log_feasible = _log_feasible(learner, encoded, query, known, fidelity_posteriors)
    return Prediction(posteriors, targets, log_feasible, weights)


def _informed(
    learner: Learner, encoded: EncodedHistory, query: Array, prior: TaskPrior
) -> Transferred | None:
    """Returns what other tasks' measurements say of the first objective; None if they do not resemble this one."""
    history = encoded.history
    measured = encoded.points, history.values[:, 0], history.errors[:, 0]
    return transferred(learner, prior, measured, query, encoded.pending)


def _objective(
    axis: int,
    learner: Learner,
    encoded: EncodedHistory,
    query: Array,
    certain: Array,
    informed: Transferred | None,
    fidelity_posterior: FidelityPosterior | None,
) -> tuple[Posterior, Target]:
    """Returns the posterior of an objective for the query points, and the target whose scale it is on.

    Args:
        axis: Position of the objective.
        learner: Fits Gaussian processes to the history.
        encoded: The history.
        query: `(n, n_knobs)`.
        certain: `(n,)`, values known beforehand, higher is better; NaN where unknown.
        informed: What other tasks' measurements say; None if nothing.
        fidelity_posterior: The posterior from low-fidelity evaluations; None without those.
    """
    values, errors = encoded.history.values[:, axis], encoded.history.errors[:, axis]
    several = encoded.history.values.shape[1] > 1
    target = _target(np.concatenate([values, certain]), several, float(encoded.baselines[axis]))
    if np.isfinite(certain).all():
        return Posterior(np.zeros(len(query)), np.zeros(len(query))), target
    if fidelity_posterior is not None:
        if several:
            return _rescaled(fidelity_posterior.posterior, fidelity_posterior.scale, target), target
        return fidelity_posterior.posterior, fidelity_posterior.scale
    if informed is not None:
        if several:
            return _rescaled(informed.posterior, informed.target, target), target
        return informed.posterior, informed.target
    rows = rows_of(target, encoded.points, values, errors)
    if several and len(rows) > 1:
        return _over_scales(axis, learner, encoded, query, target), target
    return learner.posterior_of(axis, rows, query, encoded.pending), target


def _over_scales(
    axis: int, learner: Learner, encoded: EncodedHistory, query: Array, target: Target
) -> Posterior:
    """Returns an objective's posterior as a mixture of two models: of its values, and of the logarithm of their shortfalls.

    They are weighted by their marginal likelihoods (as densities of the target; Snelson et al. 2004, "Warped Gaussian
    processes", eq. 8): costs often are sums over knobs, scores have a long tail of bad candidates.
    """
    values, errors = encoded.history.values[:, axis], encoded.history.errors[:, axis]
    shortfall = Shortfall.of(values[np.isfinite(values)])
    rows, warped = (subsampled(rows_of(t, encoded.points, values, errors)) for t in (target, shortfall))
    plain = learner.posterior_with_evidence(axis, rows, query, encoded.pending)
    other = learner.posterior_with_evidence((axis, "shortfall"), warped, query, encoded.pending)
    kept = shortfall.inverse(warped.values)
    density = float(np.sum(shortfall.log_slope(kept))) + len(rows) * _log_unit(target)
    return mixture([plain[0], _rescaled(other[0], shortfall, target)], [plain[1], other[1] + density])


def _log_unit(target: Target) -> float:
    """Returns the logarithm of how much of the objective one unit of a linear target is."""
    zero, one = target(np.array([0.0, 1.0]))
    return -float(np.log(one - zero))


def _target(values: Array, several: bool, baseline: float) -> Target:
    """Returns the scale on which an objective is learned, fitted to its finite values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Plain(0.0, 1.0)
    if several:  # hypervolume is measured in the objectives' own units, so they are not transformed
        return Plain.of(finite)
    return LogDrop.of(finite, baseline) if np.isfinite(baseline) else NormalScores.of(finite)


def _rescaled(posterior: Posterior, source: RankedDrop | Compressed | Shortfall, target: Target) -> Posterior:
    """Returns a posterior mapped from the scale `source` to `target`, to the first order (delta method).

    The new standard deviation is half the distance between the images of `mean + std` and `mean - std`.
    """
    up, down = (target(source.inverse(posterior.mean + sign * posterior.std)) for sign in (1.0, -1.0))
    std = np.abs(up - down) / 2
    noise = posterior.noise * (std / np.maximum(posterior.std, 1e-9)) ** 2
    return Posterior(target(source.inverse(posterior.mean)), std, noise)


def _certain(posterior: Posterior, values: Array) -> Posterior:
    """Returns the posterior with mean `values`, `(n,)`, and standard deviation 0 where they are not NaN."""
    is_known = np.isfinite(values)
    noise = np.where(is_known, 0.0, posterior.noise)
    return Posterior(
        np.where(is_known, values, posterior.mean), np.where(is_known, 0.0, posterior.std), noise
    )


def _log_feasible(
    learner: Learner,
    encoded: EncodedHistory,
    query: Array,
    known: Known,
    fidelity_posteriors: FidelityPosteriors,
) -> Array:
    """Returns `(n,)`, the logarithm of the probability that all constraints hold, taken as independent.

    Each constraint counts by its posterior from low-fidelity evaluations if there is one, otherwise by a
    Gaussian process over its measured excesses. Where the excess is known beforehand the probability is 1 or
    0.
    """
    total = np.zeros(len(query))
    for name, fidelity_posterior in fidelity_posteriors.items():
        if isinstance(name, str):
            certain = known.excesses.get(name, np.full(len(query), np.nan))
            limit = float(fidelity_posterior.scale(np.zeros(1))[0])
            chance = log_chance_below(
                -fidelity_posterior.posterior.mean, fidelity_posterior.posterior.std, -limit
            )
            total += np.where(np.isfinite(certain), 0.0, chance)
    for name, excesses in encoded.history.excesses.items():
        if name in fidelity_posteriors:
            continue
        certain = known.excesses.get(name, np.full(len(query), np.nan))
        finite = excesses[np.isfinite(excesses)]
        if np.isfinite(certain).all() or not len(finite):
            continue
        scale = Excess.of(finite)
        rows = rows_of(scale, encoded.points, excesses, np.zeros(len(excesses)))
        posterior = learner.posterior_of(name, rows, query, encoded.pending)
        chance = log_chance_below(posterior.mean, posterior.std, 0.0)
        total += np.where(np.isfinite(certain), 0.0, chance)
    for certain in known.excesses.values():
        total = np.where(certain > 0, -np.inf, total)
    return total

"""Chooses the next candidate from the study's trials."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from search.samplers.acquisition.gain import Forecast, Gain
from search.samplers.acquisition.improvement import baseline_reference
from search.samplers.candidates.context import Known, Params, SamplerContext, key_of
from search.samplers.candidates.generation import evolve
from search.samplers.candidates.pools import draw_candidates
from search.samplers.candidates.proposals import grid_values
from search.samplers.surrogate.acquisition_value import acquisition_value
from search.samplers.surrogate.forecasting import forecast
from search.samplers.surrogate.low_fidelity import FidelityPosteriors, LowFidelityPolicy, Observations
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.gaussian_process import Posterior
from search.samplers.surrogate.model.history import Key, Reader
from search.samplers.surrogate.model.learning import Learner, rows_of
from search.samplers.surrogate.model.prior import informed_prior
from search.samplers.surrogate.model.targets import Plain
from search.samplers.surrogate.prediction import EncodedHistory, Prediction, known_of, prediction

Array = NDArray[np.float64]
_ROUNDS, _PARENTS = 3, 20  # in a large space: generations of candidates, and parents of each generation
_MOST_KEPT = 40  # candidates that a generation leaves
_MOST_EVALUATED = (
    300  # generated candidates that may be evaluated at low fidelity: those with the highest scores
)
_OTHERS = 500  # candidates whose variance the first trial is to reduce
_LEAST_SUBSETS = 16  # a full evaluation must have at least so many times the examples of the smallest subset
_DRAWS = (
    500  # random candidates from which the values of knobs are learned where the space has no distributions
)


class Choice:
    """Chooses among the candidates of one study; keeps what does not change from trial to trial.

    Args:
        context: The study's candidates, knowledge and low-fidelity evaluations.
        size: The most candidates that are scored in one go.
        low_fidelity_budget: Cost of the low-fidelity evaluations per trial, in full evaluations.

    Attributes:
        weights: Of the last proposal: the probability that the other tasks resemble this one (`knowledge`), and that they
            do not (`none`); empty without other tasks.
    """

    def __init__(self, context: SamplerContext, size: int, low_fidelity_budget: float = 0.0) -> None:
        self.context, self._size = context, size
        self._pool = context.pool if context.pool is not None else _enumerated(context, size)
        representative = self._pool if self._pool is not None else _representative(context)
        self._encoding = Encoding(
            [*(row.params for row in context.knowledge), *representative], context.distributions
        )
        self._points = self._encoding.points(self._pool) if self._pool else np.empty((0, 0))
        self._encoded_last: tuple[Sequence[Params], Array] = (), self._encoding.points(())
        self._keys = [key_of(params) for params in self._pool or ()]
        self._at = {key: at for at, key in enumerate(self._keys)}
        self._reader = Reader()
        self._prior = informed_prior(context, self._encoding)
        self._learner = Learner(self._encoding)
        self._pool_known: Known | None = None
        self._artifact_codes: dict[str, int] = {}
        self._pool_artifacts: NDArray[np.intp] = np.zeros(
            0, np.intp
        )  # artifact of each of the pool as a number, -1 for none
        self._low_fidelity_policy = _low_fidelity_policy(context, self._encoding, low_fidelity_budget)
        self._artifact_keys: dict[Key, str] = {}  # candidate to its artifact's key, see `Known.keys`
        self._last_candidates: Sequence[
            Params
        ] = ()  # the candidates of the last proposal, in a large space or with low-fidelity evaluations
        self._fidelity_posteriors: FidelityPosteriors = {}  # of these
        self.weights: Mapping[str, float] = {}  # of the last proposal, see `Prediction`

    def pick(
        self,
        trials: Sequence[FrozenTrial],
        fixed: Params,
        running: Sequence[Params],
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        """Returns the candidate with the highest acquisition value.

        Args:
            trials: All but the one that asks.
            fixed: Knobs of the asking trial that already have a value.
            running: Candidates chosen for running trials, which may not have all their knobs yet.
            signs: `(n_objectives,)`, -1 where an objective is to be minimised.
            rng: Breaks ties.

        Returns:
            A candidate that was not proposed yet, as long as there is one; empty if there are no candidates
            at all.
        """
        encoded = self._encoded(trials, running, signs)
        proposed = self._reader.keys(trials, len(signs)) | {key_of(p): p for p in running}
        if self._pool is not None:
            return self._from_pool(encoded, proposed, key_of(fixed), signs, rng)
        return self._generated(encoded, proposed, fixed, signs, rng)

    def forecast(
        self, trials: Sequence[FrozenTrial], running: Sequence[Params], signs: Array, k: int
    ) -> Forecast | None:
        """Returns the forecast of `k` more trials, without new low-fidelity evaluations.

        It is None with too few results.

        Args:
            trials: All.
            running: Candidates chosen for running trials, which may not have all their knobs yet.
            signs: `(n_objectives,)`, -1 where an objective is to be minimised.
            k: Number of trials.
        """
        rng = np.random.default_rng(len(trials))
        encoded = self._encoded(trials, running, signs)
        done = encoded.history.full & encoded.history.feasible
        if not done.any():
            return None
        tried = self._reader.keys(trials, len(signs))
        fidelity_posteriors: FidelityPosteriors = {}
        if self._pool is None or self._fidelity_posteriors:
            at = np.array([i for i, p in enumerate(self._last_candidates) if key_of(p) not in tried], np.intp)
            left, fidelity_posteriors = (
                [self._last_candidates[int(i)] for i in at],
                _posteriors_at(self._fidelity_posteriors, at),
            )
            points, known = self._encoding.points(left), known_of(self.context.low_fidelity, left, len(signs))
        else:
            at = self._narrowed(np.flatnonzero(~self._among(tried)), encoded, rng)
            left, points = [self._pool[int(i)] for i in at], self._points[at]
            known = _known_at(self._known(len(signs)), at)
        if not left:
            # a listed space is measured completely; a large one has no candidates before the first proposal
            return None if self._pool is None else Forecast(k, Gain(0.0, 0.0), 0 if len(signs) == 1 else None)
        if self._prior is None and not fidelity_posteriors and done.sum() < self._encoding.n_axes + 3:
            return (
                None  # with fewer rows than the kernel has parameters, its variances are those of the prior
            )
        predicted = prediction(self._learner, encoded, points, known, signs, self._prior, fidelity_posteriors)
        return forecast(predicted, encoded.history, k, rng, self._known_reference(signs))

    def _known_reference(self, signs: Array) -> Array | None:
        """Returns the reference point of the study, `(n_objectives,)`; None if no baseline is known."""
        if len(self.context.baselines) != len(signs):
            return None
        return baseline_reference(
            self.context.baselines, ["maximize" if s > 0 else "minimize" for s in signs]
        )

    def _encoded(
        self, trials: Sequence[FrozenTrial], running: Sequence[Params], signs: Array
    ) -> EncodedHistory:
        history = self._reader.history(trials, signs)
        pending = [*history.pending, *running]
        points = self._history_points(history.candidates)
        return EncodedHistory(
            history,
            points,
            self._encoding.points(pending),
            np.where(signs > 0, self._baselines(signs), np.nan),
        )

    def _history_points(self, candidates: Sequence[Params]) -> Array:
        """Returns the points of the trials' candidates, `(n, n_knobs)`; those of the last call's first ones are kept."""
        last, points = self._encoded_last
        n_same = sum(
            1 for _ in takewhile(lambda pair: pair[0] is pair[1], zip(last, candidates, strict=False))
        )
        points = np.concatenate([points[:n_same], self._encoding.points(candidates[n_same:])])
        self._encoded_last = candidates, points
        return points

    def _baselines(self, signs: Array) -> Array:
        """Returns the uncompressed model's values, `(n_objectives,)`, higher is better; NaN where unknown."""
        values = [*self.context.baselines, *[None] * len(signs)][: len(signs)]
        return signs * np.array([np.nan if b is None else b for b in values], np.float64)

    # -- a space whose candidates are listed ---------------------------------------------------------------

    def _from_pool(
        self,
        encoded: EncodedHistory,
        proposed: Mapping[Key, Params],
        fixed: Key,
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        pool = self._pool or ()
        if not pool:
            return {}
        pool_known = self._known(len(signs))
        agree = np.array([fixed <= key for key in self._keys]) if fixed else np.ones(len(pool), np.bool_)
        agree = agree if agree.any() else np.ones(len(pool), np.bool_)
        proposed_artifacts = [
            self._artifact_codes[t] for t in self._proposed_artifacts(proposed) if t in self._artifact_codes
        ]
        left = agree & ~self._among(proposed)
        fresh = left & (self._pool_artifacts >= 0) & ~np.isin(self._pool_artifacts, proposed_artifacts)
        among = np.flatnonzero(fresh if fresh.any() else left if left.any() else agree)
        among = self._narrowed(among, encoded, rng)
        known = _known_at(pool_known, among)
        candidates, points = [pool[int(i)] for i in among], self._points[among]
        best_evaluated = self._by_low_fidelity(candidates, points, encoded, known, signs, rng)
        if best_evaluated is not None:
            return candidates[best_evaluated]
        scores = self._scores(encoded, points, known, signs, rng)
        scores = self._per_second(scores, candidates, points, encoded, signs)
        return pool[int(rng.choice(among[scores == scores.max()]))]

    def _known(self, n_objectives: int) -> Known:
        """Returns the values known beforehand of the pool's candidates; cached."""
        if self._pool_known is None:
            self._pool_known = known_of(self.context.low_fidelity, self._pool or (), n_objectives)
            artifacts = [artifact for artifact in dict.fromkeys(self._pool_known.keys) if artifact]
            self._artifact_codes = {artifact: code for code, artifact in enumerate(artifacts)}
            self._pool_artifacts = np.array(
                [self._artifact_codes.get(artifact, -1) for artifact in self._pool_known.keys]
            )
        return self._pool_known

    def _among(self, keys: Iterable[Key]) -> NDArray[np.bool_]:
        """Returns a mask of the pool's candidates that have one of these keys."""
        found = np.zeros(len(self._keys), np.bool_)
        found[[at for key in keys if (at := self._at.get(key)) is not None]] = True
        return found

    def _narrowed(
        self, among: NDArray[np.intp], encoded: EncodedHistory, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Returns at most `size` of the positions: half of them nearest to the best rows, the others random."""
        if len(among) <= self._size:
            return among
        chosen = rng.choice(among, self._size // 2, replace=False)
        best = self._best_points(encoded)
        gap = sum(
            self._encoding.distance(axis, self._points[among], best) for axis in range(self._encoding.n_axes)
        )
        near = (
            among[np.argsort(np.min(gap, axis=1), kind="stable")[: self._size // 2]] if len(best) else chosen
        )
        return np.unique(np.concatenate([chosen, near]))

    def _best_points(self, encoded: EncodedHistory) -> Array:
        order = np.argsort(-np.nan_to_num(encoded.history.values, nan=-np.inf)[:, 0], kind="stable")
        return encoded.points[order[:5]]  # (<= 5, n_knobs), by the first objective

    def _proposed_artifacts(self, proposed: Mapping[Key, Params]) -> set[str]:
        """Returns the artifact keys (`Known.keys`) of the candidates that were proposed."""
        if self.context.low_fidelity is None:
            return set()
        new = {key: params for key, params in proposed.items() if key not in self._artifact_keys and params}
        if new:
            artifacts = self.context.low_fidelity.known(list(new.values())).keys
            self._artifact_keys.update(zip(new, artifacts, strict=True))
        return {self._artifact_keys[key] for key in proposed if key in self._artifact_keys}

    # -- a space that is too large to list -----------------------------------------------------------------

    def _generated(
        self,
        encoded: EncodedHistory,
        proposed: Mapping[Key, Params],
        fixed: Params,
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        proposed_artifacts = self._proposed_artifacts(proposed)

        def score(candidates: Sequence[Params]) -> Array:
            known = known_of(self.context.low_fidelity, candidates, len(signs))
            points = self._encoding.points(candidates)
            found = self._scores(encoded, points, known, signs, rng)
            found = self._per_second(found, candidates, points, encoded, signs)
            same_file = [artifact in proposed_artifacts or not artifact for artifact in known.keys]
            found[np.array(same_file, dtype=bool)] = -np.inf
            found[_repeated(found, candidates, proposed)] = -np.inf
            return found

        if self.context.distributions:
            order = np.argsort(-np.nan_to_num(encoded.history.values, nan=-np.inf)[:, 0], kind="stable")
            parents = [encoded.history.candidates[i] for i in order[:_PARENTS]]
            found, scores = evolve(
                parents, score, self.context, rng, _ROUNDS, self._size // _ROUNDS, _MOST_KEPT
            )
        else:
            assert self.context.draw is not None  # or there would be nothing to choose from
            found = [self.context.draw(rng) for _ in range(self._size)]
            scores = score(found)
        self._last_candidates, self._fidelity_posteriors = found, {}
        if not found:
            return {}
        agreeing = np.array([all(p.get(k) == v for k, v in fixed.items()) for p in found])
        scores = np.where(agreeing | ~agreeing.any(), scores, -np.inf)
        best = np.argsort(-scores, kind="stable")[:_MOST_EVALUATED]
        best = best[scores[best] > -np.inf]
        likely = [found[int(i)] for i in best]
        known = known_of(self.context.low_fidelity, likely, len(signs))
        best_evaluated = self._by_low_fidelity(
            likely, self._encoding.points(likely), encoded, known, signs, rng
        )
        if best_evaluated is not None:
            return likely[best_evaluated]
        return found[int(rng.choice(np.flatnonzero(scores == scores.max())))]

    # -- low-fidelity evaluations ------------------------------------------------------------------------------

    def _by_low_fidelity(
        self,
        candidates: Sequence[Params],
        points: Array,
        encoded: EncodedHistory,
        known: Known,
        signs: Array,
        rng: np.random.Generator,
    ) -> int | None:
        """Runs low-fidelity evaluations, and returns the position of the candidate to try; None without any."""
        if self._low_fidelity_policy is None or not candidates or np.isfinite(known.values).all():
            return None
        observations = self._observations(candidates, points, encoded, known, signs)

        def acquisition(fidelity_posteriors: FidelityPosteriors, ready: NDArray[np.bool_] | None) -> Array:
            predicted = prediction(
                self._learner, encoded, points, known, signs, self._prior, fidelity_posteriors
            )
            if ready is None:  # the final choice: kept for `forecast`
                self._last_candidates, self._fidelity_posteriors = candidates, fidelity_posteriors
            incumbents = None if ready is None else _incumbents(predicted, ready)
            return acquisition_value(
                predicted, encoded.history, rng, incumbents, self._known_reference(signs)
            )

        return self._low_fidelity_policy.pick(observations, acquisition, rng)

    def _observations(
        self, candidates: Sequence[Params], points: Array, encoded: EncodedHistory, known: Known, signs: Array
    ) -> Observations:
        history = encoded.history
        prior_mean = None
        if self._prior is not None:
            predicted = prediction(self._learner, encoded, points, known, signs, self._prior)
            prior_mean, self.weights = predicted.posteriors[0].mean, predicted.weights
        return Observations(
            candidates, points, np.any([e > 0 for e in known.excesses.values()], axis=0) | np.zeros(len(points), bool),
            history.candidates, encoded.points, history.values, history.errors, history.excesses, signs,
            self._baselines(signs), prior_mean,
        )  # fmt: skip

    # -- acquisition values --------------------------------------------------------------------------------

    def _scores(
        self, encoded: EncodedHistory, query: Array, known: Known, signs: Array, rng: np.random.Generator
    ) -> Array:
        predicted = prediction(self._learner, encoded, query, known, signs, self._prior)
        self.weights = predicted.weights
        if len(signs) == 1 and self._prior is None and not len(encoded.points) and not len(encoded.pending):
            others = query[rng.choice(len(query), min(len(query), _OTHERS), replace=False)]
            return np.log(self._learner.variance_reduction(query, others)) + predicted.log_feasible
        return acquisition_value(
            predicted, encoded.history, rng, known_reference=self._known_reference(signs)
        )

    def _per_second(
        self,
        scores: Array,
        candidates: Sequence[Params],
        points: Array,
        encoded: EncodedHistory,
        signs: Array,
    ) -> Array:
        """Returns acquisition values per second of a candidate's trial (Snoek et al. 2012, arXiv 1206.2944, section 3.2).

        A candidate whose training has been done for another costs only the rest of a trial. What a new training takes is
        learned from the others. Without `context.expense` and before the first feasible result the values stay as they are.

        Args:
            scores: `(n,)`, as `acquisition_value` returns them.
            candidates: The `n` candidates.
            points: `(n, n_knobs)`.
            encoded: The history.
            signs: `(n_objectives,)`.
        """
        expense = self.context.expense
        if expense is None or not (encoded.history.full & encoded.history.feasible).any():
            return scores
        keys = expense.keys(candidates)  # which also finds trainings that other studies have done
        if not expense.trained:
            return scores
        examples, seconds = zip(*expense.trained.values(), strict=True)
        logs = np.log(np.maximum(seconds, 1e-3))
        scale = Plain.of(logs)
        rows = rows_of(scale, self._encoding.points(examples), logs, np.zeros(len(logs)))
        mean = self._learner.posterior_of("training seconds", rows, points, points[:0]).mean
        is_done = np.array([not key or key in expense.trained for key in keys])
        cost_s = expense.rest_s + np.where(is_done, 0.0, np.exp(scale.shift + scale.scale * mean))
        return scores - np.log(cost_s) if len(signs) == 1 else np.where(scores > 0, scores / cost_s, scores)


def _repeated(scores: Array, candidates: Sequence[Params], proposed: Mapping[Key, Params]) -> list[int]:
    """Returns the positions of candidates that were proposed before, as far as they matter.

    They are looked for from the highest score down, until there are more others than will be kept.
    """
    repeated: list[int] = []
    n_new = 0
    for at in np.argsort(-scores, kind="stable"):
        if key_of(candidates[int(at)]) in proposed:
            repeated.append(int(at))
            continue
        n_new += 1
        if n_new > _MOST_KEPT:
            break
    return repeated


def _low_fidelity_policy(
    context: SamplerContext, encoding: Encoding, budget: float
) -> LowFidelityPolicy | None:
    """Returns the low-fidelity policy; None without a budget, or if the smallest subset is too large."""
    low_fidelity = context.low_fidelity
    if (
        low_fidelity is None
        or budget <= 0
        or not low_fidelity.sizes
        or low_fidelity.n_full < _LEAST_SUBSETS * low_fidelity.sizes[0]
    ):
        return None
    return LowFidelityPolicy(low_fidelity, encoding, budget)


def _posteriors_at(fidelity_posteriors: FidelityPosteriors, at: NDArray[np.intp]) -> FidelityPosteriors:
    """Returns the posteriors of the candidates at these positions."""
    return {
        name: replace(
            fidelity_posterior,
            posterior=Posterior(fidelity_posterior.posterior.mean[at], fidelity_posterior.posterior.std[at]),
        )
        for name, fidelity_posterior in fidelity_posteriors.items()
    }


def _incumbents(predicted: Prediction, ready: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns the positions of the incumbents: candidates that are ready and probably feasible.

    If there are none, it is the one with the highest mean plus logarithm of the probability of feasibility.

    Args:
        predicted: Predictions for `n` candidates.
        ready: `(n,)`, where low-fidelity evaluations have used the largest subset.
    """
    feasible = predicted.log_feasible > np.log(0.5)
    if (ready & feasible).any():
        return np.flatnonzero(ready & feasible)
    return np.array([int(np.argmax(predicted.posteriors[0].mean + predicted.log_feasible))])


def _known_at(known: Known, at: NDArray[np.intp]) -> Known:
    """Returns the known values of the candidates at these positions."""
    return Known(
        known.values[at], {name: e[at] for name, e in known.excesses.items()}, [known.keys[i] for i in at]
    )


def _enumerated(context: SamplerContext, size: int) -> list[dict[str, Any]] | None:
    """Returns all candidates of a space without conditions that has at most `size`; None for other spaces."""
    if context.draw is not None:
        return None
    counts = [len(grid_values(kind) or ()) for kind in context.distributions.values()]
    if not all(counts) or math.prod(counts) > size:
        return None
    return draw_candidates(context.distributions, size, np.random.default_rng(0))


def _representative(context: SamplerContext) -> list[Params]:
    """Returns candidates that together contain every value of the space's categorical knobs."""
    rng = np.random.default_rng(0)
    drawn = [context.draw(rng) for _ in range(_DRAWS)] if context.draw is not None else []
    listed: list[Params] = [
        {name: value} for name, kind in context.distributions.items() for value in _values(kind)
    ]
    return [*listed, *drawn]


def _values(kind: BaseDistribution) -> list[Any]:
    """Returns a knob's values: all of a category, up to 1,000 of a grid, otherwise both ends of the range."""
    if isinstance(kind, CategoricalDistribution):
        return list(kind.choices)
    numbers = grid_values(kind) or [kind.low, kind.high]  # type: ignore[attr-defined]  # Optuna has no other
    return [kind.to_external_repr(number) for number in numbers[:1000]]

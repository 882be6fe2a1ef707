"""From trials to the next candidate."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from search.samplers.acquisition.gain import Forecast, Gain
from search.samplers.acquisition.improvement import worth_nothing
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
from search.samplers.surrogate.model.learning import Learner
from search.samplers.surrogate.model.prior import informed_prior
from search.samplers.surrogate.prediction import Prediction, Seen, known_of, prediction

Array = NDArray[np.float64]
_ROUNDS, _PARENTS = 3, 20  # generations of candidates in a large space, and of how many parents each
_MOST_EVALUATED = 300  # generated candidates, the most promising
_OTHERS = 500  # candidates of which the first one is to tell
_LEAST_SUBSETS = 16  # times the examples of the smallest look that a full evaluation must have
_DRAWS = 500  # candidates that show what values knobs have, where nothing else tells


class Choice:
    """Chooses among the candidates of one study; keeps what does not change from trial to trial.

    Args:
        context: What the study told.
        size: The most candidates that are looked at in one go.
        low_fidelity_budget: What short looks may cost for each trial, in full evaluations.
    """

    def __init__(self, context: SamplerContext, size: int, low_fidelity_budget: float = 0.0) -> None:
        self.context, self._size = context, size
        self._pool = context.pool if context.pool is not None else _enumerated(context, size)
        shown = self._pool if self._pool is not None else _shown(context)
        self._encoding = Encoding([*(row.params for row in context.knowledge), *shown], context.distributions)
        self._points = self._encoding.points(self._pool) if self._pool else np.empty((0, 0))
        self._keys = [key_of(params) for params in self._pool or ()]
        self._at = {key: at for at, key in enumerate(self._keys)}
        self._reader = Reader()
        self._prior = informed_prior(context, self._encoding)
        self._learner = Learner(self._encoding, self._prior)
        self._pool_known: Known | None = None
        self._text_codes: dict[str, int] = {}
        self._texts: NDArray[np.intp] = np.zeros(0, np.intp)  # the pool's texts as numbers, -1 for none
        self._low_fidelity_policy = _low_fidelity_policy(context, self._encoding, low_fidelity_budget)
        self._same: dict[Key, str] = {}  # candidate to the text that its equals share
        self._likely: Sequence[
            Params
        ] = ()  # what the last proposal was chosen among, in a large space or by looks
        self._fidelity_posteriors: FidelityPosteriors = {}  # what looks let believe of these

    def pick(
        self,
        trials: Sequence[FrozenTrial],
        fixed: Params,
        running: Sequence[Params],
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        """Returns the most promising candidate.

        Args:
            trials: All others.
            fixed: Knobs of this trial that are decided.
            running: Picks of trials that may not have asked for them yet.
            signs: `(n_objectives,)`, -1 where an objective is to be minimised.
            rng: Breaks ties.

        Returns:
            A candidate that nobody proposed, as long as there is one; empty if there are no candidates at all.
        """
        seen = self._seen(trials, running, signs)
        proposed = self._reader.keys(trials, len(signs)) | {key_of(p): p for p in running}
        if self._pool is not None:
            return self._from_pool(seen, proposed, key_of(fixed), signs, rng)
        return self._generated(seen, proposed, fixed, signs, rng)

    def forecast(
        self, trials: Sequence[FrozenTrial], running: Sequence[Params], signs: Array, k: int
    ) -> Forecast | None:
        """Returns what `k` more trials would gain, as far as can be told without another look.

        Args:
            trials: All.
            running: Picks of trials that may not have asked for them yet.
            signs: `(n_objectives,)`, -1 where an objective is to be minimised.
            k: Number of trials.
        """
        rng = np.random.default_rng(len(trials))
        seen = self._seen(trials, running, signs)
        done = seen.history.full & seen.history.feasible
        if not done.any():
            return None
        tried = self._reader.keys(trials, len(signs))
        fidelity_posteriors: FidelityPosteriors = {}
        if self._pool is None or self._fidelity_posteriors:
            at = np.array([i for i, p in enumerate(self._likely) if key_of(p) not in tried], np.intp)
            left, fidelity_posteriors = (
                [self._likely[int(i)] for i in at],
                _some(self._fidelity_posteriors, at),
            )
            points, known = self._encoding.points(left), known_of(self.context.low_fidelity, left, len(signs))
        else:
            at = self._narrowed(np.flatnonzero(~self._among(tried)), seen, rng)
            left, points = [self._pool[int(i)] for i in at], self._points[at]
            known = _taken(self._known(len(signs)), at)
        if not left:
            # all of a listed space is measured; of a large one nothing is known before the first proposal
            return None if self._pool is None else Forecast(k, Gain(0.0, 0.0), 0 if len(signs) == 1 else None)
        if self._prior is None and not fidelity_posteriors and done.sum() < self._encoding.n_axes + 3:
            return None  # a kernel has so many parameters: with fewer rows its doubts are what it began with
        view = prediction(self._learner, seen, points, known, signs, self._prior, fidelity_posteriors)
        return forecast(view, seen.history, k, rng, self._floors(signs))

    def _floors(self, signs: Array) -> Array | None:
        """Returns what the study's hypervolume counts as worth nothing; None where no uncompressed model is known."""
        if len(self.context.baselines) != len(signs):
            return None
        return worth_nothing(self.context.baselines, ["maximize" if s > 0 else "minimize" for s in signs])

    def _seen(self, trials: Sequence[FrozenTrial], running: Sequence[Params], signs: Array) -> Seen:
        history = self._reader.history(trials, signs)
        pending = [*history.pending, *running]
        points, ahead = self._encoding.points(history.candidates), self._encoding.points(pending)
        return Seen(history, points, ahead, np.where(signs > 0, self._baselines(signs), np.nan))

    def _baselines(self, signs: Array) -> Array:
        """Returns what the uncompressed model has, `(n_objectives,)`, higher is better; NaN where it is unknown."""
        told = [*self.context.baselines, *[None] * len(signs)][: len(signs)]
        return signs * np.array([np.nan if b is None else b for b in told], np.float64)

    # -- a space that is listed ----------------------------------------------------------------------------

    def _from_pool(
        self,
        seen: Seen,
        proposed: Mapping[Key, Params],
        fixed: Key,
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        pool = self._pool or ()
        if not pool:
            return {}
        whole = self._known(len(signs))
        agree = np.array([fixed <= key for key in self._keys]) if fixed else np.ones(len(pool), np.bool_)
        agree = agree if agree.any() else np.ones(len(pool), np.bool_)
        same = [self._text_codes[t] for t in self._measured_texts(proposed) if t in self._text_codes]
        left = agree & ~self._among(proposed)
        fresh = left & (self._texts >= 0) & ~np.isin(self._texts, same)
        among = np.flatnonzero(fresh if fresh.any() else left if left.any() else agree)
        among = self._narrowed(among, seen, rng)
        known = _taken(whole, among)
        best_evaluated = self._look(
            [pool[int(i)] for i in among], self._points[among], seen, known, signs, rng
        )
        if best_evaluated is not None:
            return pool[int(among[best_evaluated])]
        scores = self._scores(seen, self._points[among], known, signs, rng)
        return pool[int(rng.choice(among[scores == scores.max()]))]

    def _known(self, n_objectives: int) -> Known:
        """Returns what is certain of the pool, asked once."""
        if self._pool_known is None:
            self._pool_known = known_of(self.context.low_fidelity, self._pool or (), n_objectives)
            texts = [text for text in dict.fromkeys(self._pool_known.keys) if text]
            self._text_codes = {text: code for code, text in enumerate(texts)}
            self._texts = np.array([self._text_codes.get(text, -1) for text in self._pool_known.keys])
        return self._pool_known

    def _among(self, keys: Iterable[Key]) -> NDArray[np.bool_]:
        """Returns which of the pool are among the candidates with these keys."""
        found = np.zeros(len(self._keys), np.bool_)
        found[[at for key in keys if (at := self._at.get(key)) is not None]] = True
        return found

    def _narrowed(self, among: NDArray[np.intp], seen: Seen, rng: np.random.Generator) -> NDArray[np.intp]:
        """Returns at most `size` positions: half of them those nearest to the best rows, the others random."""
        if len(among) <= self._size:
            return among
        chosen = rng.choice(among, self._size // 2, replace=False)
        best = self._best_points(seen)
        gap = sum(
            self._encoding.distance(axis, self._points[among], best) for axis in range(self._encoding.n_axes)
        )
        near = (
            among[np.argsort(np.min(gap, axis=1), kind="stable")[: self._size // 2]] if len(best) else chosen
        )
        return np.unique(np.concatenate([chosen, near]))

    def _best_points(self, seen: Seen) -> Array:
        order = np.argsort(-np.nan_to_num(seen.history.values, nan=-np.inf)[:, 0], kind="stable")
        return seen.points[order[:5]]

    def _measured_texts(self, proposed: Mapping[Key, Params]) -> set[str]:
        """Returns the texts that candidates share which come to the same file as one that was proposed."""
        if self.context.low_fidelity is None:
            return set()
        new = {key: params for key, params in proposed.items() if key not in self._same and params}
        if new:
            texts = self.context.low_fidelity.known(list(new.values())).keys
            self._same.update(zip(new, texts, strict=True))
        return {self._same[key] for key in proposed if key in self._same}

    # -- a space that is too large to list -----------------------------------------------------------------

    def _generated(
        self,
        seen: Seen,
        proposed: Mapping[Key, Params],
        fixed: Params,
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        same = self._measured_texts(proposed)

        def score(candidates: Sequence[Params]) -> Array:
            known = known_of(self.context.low_fidelity, candidates, len(signs))
            found = self._scores(seen, self._encoding.points(candidates), known, signs, rng)
            old = [
                key_of(c) in proposed or (t in same or not t)
                for c, t in zip(candidates, known.keys, strict=True)
            ]
            found[np.array(old, dtype=bool)] = -np.inf
            return found

        if self.context.distributions:
            order = np.argsort(-np.nan_to_num(seen.history.values, nan=-np.inf)[:, 0], kind="stable")
            parents = [seen.history.candidates[i] for i in order[:_PARENTS]]
            found, scores = evolve(parents, score, self.context, rng, _ROUNDS, self._size // _ROUNDS)
        else:
            assert self.context.draw is not None  # or there would be nothing to choose from
            found = [self.context.draw(rng) for _ in range(self._size)]
            scores = score(found)
        self._likely, self._fidelity_posteriors = found, {}
        if not found:
            return {}
        agreeing = np.array([all(p.get(k) == v for k, v in fixed.items()) for p in found])
        scores = np.where(agreeing | ~agreeing.any(), scores, -np.inf)
        best = np.argsort(-scores, kind="stable")[:_MOST_EVALUATED]
        best = best[scores[best] > -np.inf]
        likely = [found[int(i)] for i in best]
        known = known_of(self.context.low_fidelity, likely, len(signs))
        best_evaluated = self._look(likely, self._encoding.points(likely), seen, known, signs, rng)
        if best_evaluated is not None:
            return likely[best_evaluated]
        return found[int(rng.choice(np.flatnonzero(scores == scores.max())))]

    # -- looks -----------------------------------------------------------------------------------------------

    def _look(
        self,
        candidates: Sequence[Params],
        points: Array,
        seen: Seen,
        known: Known,
        signs: Array,
        rng: np.random.Generator,
    ) -> int | None:
        """Returns the position of the candidate to try, after looks at some; None without looks."""
        if self._low_fidelity_policy is None or not candidates or np.isfinite(known.values).all():
            return None
        observations = self._observations(candidates, points, seen, known, signs)

        def judge(fidelity_posteriors: FidelityPosteriors, ready: NDArray[np.bool_] | None) -> Array:
            view = prediction(self._learner, seen, points, known, signs, self._prior, fidelity_posteriors)
            if ready is None:  # what is believed in the end
                self._likely, self._fidelity_posteriors = candidates, fidelity_posteriors
            beaten = None if ready is None else _to_beat(view, ready)
            return acquisition_value(view, seen.history, rng, beaten, self._floors(signs))

        return self._low_fidelity_policy.pick(observations, judge, rng)

    def _observations(
        self, candidates: Sequence[Params], points: Array, seen: Seen, known: Known, signs: Array
    ) -> Observations:
        history = seen.history
        guess = None
        if self._prior is not None:
            guess = prediction(self._learner, seen, points, known, signs, self._prior).posteriors[0].mean
        return Observations(
            candidates, points, np.any([e > 0 for e in known.excesses.values()], axis=0) | np.zeros(len(points), bool),
            history.candidates, seen.points, history.values, history.errors, history.excesses, signs,
            self._baselines(signs), guess,
        )  # fmt: skip

    # -- how promising -------------------------------------------------------------------------------------

    def _scores(
        self, seen: Seen, ahead: Array, known: Known, signs: Array, rng: np.random.Generator
    ) -> Array:
        view = prediction(self._learner, seen, ahead, known, signs, self._prior)
        if len(signs) == 1 and self._prior is None and not len(seen.points) and not len(seen.pending):
            others = ahead[rng.choice(len(ahead), min(len(ahead), _OTHERS), replace=False)]
            return np.log(self._learner.tells(ahead, others)) + view.log_feasible
        return acquisition_value(view, seen.history, rng, floors=self._floors(signs))


def _low_fidelity_policy(
    context: SamplerContext, encoding: Encoding, budget: float
) -> LowFidelityPolicy | None:
    """Returns what takes looks; None where they are not wanted, or would cost nearly what a trial costs."""
    low_fidelity = context.low_fidelity
    if (
        low_fidelity is None
        or budget <= 0
        or not low_fidelity.sizes
        or low_fidelity.n_full < _LEAST_SUBSETS * low_fidelity.sizes[0]
    ):
        return None
    return LowFidelityPolicy(low_fidelity, encoding, budget)


def _some(fidelity_posteriors: FidelityPosteriors, at: NDArray[np.intp]) -> FidelityPosteriors:
    """Returns what is believed of some of the candidates."""
    return {
        name: replace(
            fidelity_posterior,
            posterior=Posterior(fidelity_posterior.posterior.mean[at], fidelity_posterior.posterior.std[at]),
        )
        for name, fidelity_posterior in fidelity_posteriors.items()
    }


def _to_beat(view: Prediction, ready: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Returns the candidates that could be tried at once and are likely to count; the likeliest one if there are none."""
    feasible = view.log_feasible > np.log(0.5)
    if (ready & feasible).any():
        return np.flatnonzero(ready & feasible)
    return np.array([int(np.argmax(view.posteriors[0].mean + view.log_feasible))])


def _taken(known: Known, at: NDArray[np.intp]) -> Known:
    return Known(
        known.values[at], {name: e[at] for name, e in known.excesses.items()}, [known.keys[i] for i in at]
    )


def _enumerated(context: SamplerContext, size: int) -> list[dict[str, Any]] | None:
    """Returns all candidates of a small space without conditions, where nothing but its knobs is known."""
    if context.draw is not None:
        return None
    counts = [len(grid_values(kind) or ()) for kind in context.distributions.values()]
    if not all(counts) or math.prod(counts) > size:
        return None
    return draw_candidates(context.distributions, size, np.random.default_rng(0))


def _shown(context: SamplerContext) -> list[Params]:
    """Returns candidates that between them have all values there are to choices."""
    rng = np.random.default_rng(0)
    drawn = [context.draw(rng) for _ in range(_DRAWS)] if context.draw is not None else []
    listed: list[Params] = [
        {name: value} for name, kind in context.distributions.items() for value in _values(kind)
    ]
    return [*listed, *drawn]


def _values(kind: BaseDistribution) -> list[Any]:
    if isinstance(kind, CategoricalDistribution):
        return list(kind.choices)
    numbers = grid_values(kind) or [kind.low, kind.high]  # type: ignore[attr-defined]  # Optuna has no other
    return [kind.to_external_repr(number) for number in numbers[:1000]]

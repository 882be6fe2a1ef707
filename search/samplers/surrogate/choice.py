"""From trials to the next candidate."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from search.samplers.context import Known, Params, SamplerContext, key_of
from search.samplers.generation import evolve
from search.samplers.pools import draw_candidates
from search.samplers.proposals import grid_values
from search.samplers.surrogate.encoding import Encoding
from search.samplers.surrogate.history import history_of
from search.samplers.surrogate.learning import Learner
from search.samplers.surrogate.outlook import Seen, known_of, outlook
from search.samplers.surrogate.prior import informed_prior
from search.samplers.surrogate.promise import promise

Array = NDArray[np.float64]
_ROUNDS, _PARENTS = 3, 20  # generations of candidates in a large space, and of how many parents each
_DRAWS = 500  # candidates that show what values knobs have, where nothing else tells


class Choice:
    """Chooses among the candidates of one study; keeps what does not change from trial to trial.

    Args:
        context: What the study told.
        size: The most candidates that are looked at in one go.
    """

    def __init__(self, context: SamplerContext, size: int) -> None:
        self.context, self._size = context, size
        self._pool = context.pool if context.pool is not None else _enumerated(context, size)
        shown = self._pool if self._pool is not None else _shown(context)
        self._encoding = Encoding([*(row.params for row in context.knowledge), *shown], context.distributions)
        self._points = self._encoding.points(self._pool) if self._pool else np.empty((0, 0))
        self._keys = [key_of(params) for params in self._pool or ()]
        self._prior = informed_prior(context, self._encoding)
        self._learner = Learner(self._encoding, self._prior)
        self._pool_known: Known | None = None
        self._same: dict[frozenset[tuple[str, Any]], str] = {}  # candidate to the text that its equals share

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
        proposed = {key_of(t.params): t.params for t in trials} | {key_of(p): p for p in running}
        if self._pool is not None:
            return self._from_pool(seen, proposed, key_of(fixed), signs, rng)
        return self._generated(seen, proposed, fixed, signs, rng)

    def _seen(self, trials: Sequence[FrozenTrial], running: Sequence[Params], signs: Array) -> Seen:
        history = history_of(trials, signs)
        pending = [*history.pending, *running]
        return Seen(history, self._encoding.points(history.candidates), self._encoding.points(pending))

    # -- a space that is listed ----------------------------------------------------------------------------

    def _from_pool(
        self,
        seen: Seen,
        proposed: Mapping[frozenset[tuple[str, Any]], Params],
        fixed: frozenset[tuple[str, Any]],
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        pool = self._pool or ()
        if not pool:
            return {}
        if self._pool_known is None:
            self._pool_known = known_of(self.context.looks, pool, len(signs))
        agree = [i for i, key in enumerate(self._keys) if fixed <= key] if fixed else range(len(pool))
        agree = agree or range(len(pool))
        same = self._measured_texts(proposed)
        texts = self._pool_known.keys
        left = [i for i in agree if self._keys[i] not in proposed]
        fresh = [i for i in left if texts[i] and texts[i] not in same]
        among = np.array(fresh or left or list(agree))
        among = self._narrowed(among, seen, rng)
        known = _taken(self._pool_known, among)
        scores = self._scores(seen, self._points[among], known, signs, rng)
        return pool[int(rng.choice(among[scores == scores.max()]))]

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

    def _measured_texts(self, proposed: Mapping[frozenset[tuple[str, Any]], Params]) -> set[str]:
        """Returns the texts that candidates share which come to the same file as one that was proposed."""
        if self.context.looks is None:
            return set()
        new = {key: params for key, params in proposed.items() if key not in self._same and params}
        if new:
            texts = self.context.looks.known(list(new.values())).keys
            self._same.update(zip(new, texts, strict=True))
        return {self._same[key] for key in proposed if key in self._same}

    # -- a space that is too large to list -----------------------------------------------------------------

    def _generated(
        self,
        seen: Seen,
        proposed: Mapping[frozenset[tuple[str, Any]], Params],
        fixed: Params,
        signs: Array,
        rng: np.random.Generator,
    ) -> Params:
        same = self._measured_texts(proposed)

        def score(candidates: Sequence[Params]) -> Array:
            known = known_of(self.context.looks, candidates, len(signs))
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
        if not len(found):
            return {}
        agreeing = np.array([all(p.get(k) == v for k, v in fixed.items()) for p in found])
        scores = np.where(agreeing | ~agreeing.any(), scores, -np.inf)
        return found[int(rng.choice(np.flatnonzero(scores == scores.max())))]

    # -- how promising -------------------------------------------------------------------------------------

    def _scores(
        self, seen: Seen, ahead: Array, known: Known, signs: Array, rng: np.random.Generator
    ) -> Array:
        view = outlook(self._learner, seen, ahead, known, signs, self._prior)
        return promise(view, seen.history, rng)


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

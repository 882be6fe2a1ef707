"""Quantune: boosted trees predict every candidate, the best prediction is next (arXiv 2202.05048)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.samplers.boosted_trees import BoostedTrees
from search.samplers.candidates.context import KnowledgeRow, Params, SamplerContext, key_of
from search.samplers.candidates.pools import Pool, draw_candidates
from search.samplers.pick_sampler import PickSampler, other_trials, signs_of
from search.samplers.ranking import infeasible_last, joined


class QuantuneSampler(PickSampler):
    """Quantune's XGB (online) and, with `transfer`, its XGB-T.

    Before each trial an XGBoost regressor is trained from scratch on the raw values of all measured candidates (with
    `transfer`, of the other tasks' candidates as well), every candidate that was not proposed is predicted, and the one
    with the best prediction is proposed: no exploration, ties broken at random. Without any measured
    candidate the proposal is random.

    The paper has one objective and no constraint. With several objectives each is predicted by its own regressor and
    the predictions are joined by a random augmented Chebyshev weighting (ParEGO, Knowles 2006, eq. 2); other tasks'
    rows then inform the first objective. Where trials carry constraints (`trial.set_constraint`), candidates that are
    predicted to break one come last.

    Without `bind` the candidates are drawn from the knobs that all trials share; the remaining ones are random.

    Args:
        transfer: Whether other tasks' measurements and the task descriptors (from `bind`) are used.
        n_rounds: Number of trees.
        eta: Shrinkage of each tree.
        gamma: Minimum loss reduction of a split.
        max_depth: Maximum number of splits from root to leaf.
        pool_size: Candidates drawn per proposal where the space cannot be enumerated.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        transfer: bool = False,
        n_rounds: int = 200,
        eta: float = 0.15,
        gamma: float = 3.0,
        max_depth: int = 6,
        pool_size: int = 2000,
        seed: int | None = None,
    ) -> None:
        self._transfer = transfer
        self._trees = BoostedTrees(n_rounds, eta, gamma, max_depth)
        self._pool_size = pool_size
        super().__init__(seed)
        self._whole_pool: Pool | None = None

    def bind(self, context: SamplerContext) -> None:
        """Stores the candidates and, with `transfer`, the other tasks' measurements."""
        self._context, self._whole_pool = context, None

    @property
    def _knowledge(self) -> Sequence[KnowledgeRow]:
        return self._context.knowledge if self._transfer else ()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the best prediction among candidates drawn from the shared knobs."""
        if not search_space:
            return {}
        others = other_trials(study, trial)
        drawn = draw_candidates(search_space, self._pool_size, self._rng)
        pool = Pool(drawn, self._knowledge, self._context.descriptors, [t.params for t in others])
        return dict(self._pick(study, trial, pool, others))

    # -- the choice --------------------------------------------------------------------------------------

    def _bound_pick(self, study: Study, trial: FrozenTrial) -> Params:
        others = other_trials(study, trial)
        pool = self._candidates(others)
        return self._pick(study, trial, pool, others) if pool else {}

    def _candidates(self, trials: Sequence[FrozenTrial]) -> Pool | None:
        """Returns the candidates of the context; None if it has an empty pool."""
        context = self._context
        if context.pool is not None:
            if self._whole_pool is None and context.pool:
                self._whole_pool = Pool(context.pool, self._knowledge, context.descriptors)
            return self._whole_pool
        assert context.draw is not None  # `_bound`
        drawn = [context.draw(self._rng) for _ in range(self._pool_size)]
        return Pool(drawn, self._knowledge, context.descriptors, [t.params for t in trials])

    def _pick(self, study: Study, trial: FrozenTrial, pool: Pool, others: Sequence[FrozenTrial]) -> Params:
        """Returns the new candidate with the best prediction that agrees with the trial's values so far."""
        proposed = {key_of(t.params) for t in others} | {key_of(pick) for pick in self._picks.values()}
        fixed = key_of(trial.params)
        agree = [i for i, key in enumerate(pool.keys) if fixed <= key] or range(len(pool.keys))
        left = [i for i in agree if pool.keys[i] not in proposed] or list(agree)
        scores = self._scores(study, pool, left, [t for t in others if t.state == TrialState.COMPLETE])
        best = np.flatnonzero(scores == scores.max())
        return pool.candidates[left[int(self._rng.choice(best))]]

    def _scores(
        self, study: Study, pool: Pool, left: Sequence[int], measured: Sequence[FrozenTrial]
    ) -> NDArray[np.float64]:
        """Returns the scores `(len(left),)` of the candidates at these positions of the pool."""
        signs = signs_of(study.directions)
        finite = [t for t in measured if np.isfinite(t.values).all()]
        values = np.array([t.values for t in finite]).reshape(len(finite), len(signs)) * signs
        features, query = pool.encode([t.params for t in finite]), pool.features[left]
        predicted = []
        for axis, sign in enumerate(signs):
            x, y = features, values[:, axis]
            if axis == 0 and self._knowledge:
                x = np.concatenate([pool.known_features, features])
                y = np.concatenate([[row.value * sign for row in self._knowledge], y])
            # the paper's label is raw top-1 in percent; with fractions no split would reach `gamma`
            raw = len(signs) == 1 and np.abs(y).max(initial=0.0) > 1
            predicted.append(self._predict(x, y, query, 1.0 if raw else _to_percent(y)))
        scores = joined(np.stack(predicted, axis=1), values, self._rng)
        return infeasible_last(scores, self._excesses(finite, features, query))

    def _excesses(
        self, trials: Sequence[FrozenTrial], features: NDArray[np.float32], query: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float64]]:
        """Returns per constraint the predicted excess `(len(query),)`, in units of its spread."""
        found = {}
        for name in sorted({name for t in trials for name in t.constraints}):
            rows = [i for i, t in enumerate(trials) if np.isfinite(t.constraints.get(name, np.nan))]
            excess = np.array([trials[i].constraints[name] for i in rows])
            if len(excess):
                scale = _to_percent(excess)
                found[name] = scale * self._predict(features[rows], excess, query, scale)
        return found

    def _predict(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.float64],
        query: NDArray[np.float32],
        scale: float,
    ) -> NDArray[np.float64]:
        """Returns predictions `(len(query),)` of trees that are trained on `scale * labels`, divided by `scale`."""
        seed = int(self._rng.integers(2**31))
        return self._trees.predict(features, scale * labels, query, seed) / scale


def _to_percent(labels: NDArray[np.float64]) -> float:
    """Returns the factor that makes the largest magnitude 100: `gamma` is meant for percentage points."""
    largest = float(np.abs(labels).max(initial=0.0))
    return 100.0 / largest if largest > 0 else 1.0

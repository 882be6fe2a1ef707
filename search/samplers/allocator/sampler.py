"""The allocator's solutions as proposals: first its front, then corrected fronts and a sampler for all other knobs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.allocators.base import Allocator
from search.allocators.corrections import Observation, corrected
from search.allocators.problem import Allocation, Problem
from search.samplers.candidates.context import Bindable, Params, SamplerContext
from search.samplers.candidates.pools import contains
from search.samplers.pick_sampler import other_trials, signs_of
from search.samplers.surrogate import SurrogateSampler
from spaces.errors import ConfigError

LEARN_AGAIN = 1.25


class AllocatorSampler(BaseSampler):
    """Proposes the allocator's front, ranks it by the trials, and goes on from there.

    The first proposals are the allocations of the front, the other knobs as in the best trial so far, or drawn by `base`.
    After these, proposals alternate: allocations of a front that is solved again with losses corrected by the trials
    (`allocators/corrections.py`; neighbouring units interact), and candidates of `base` for the other knobs, with the
    allocation of one of the best trials.

    In a study without Paredown, parameters that are named as the allocator's units get their widths as values.

    Args:
        allocator: The allocator; None leaves everything to `base`.
        base: Proposes all other knobs; None takes the surrogate sampler.
        objective: Position of the objective that the predicted losses stand for.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        allocator: Allocator | None = None,
        base: BaseSampler | None = None,
        objective: int = 0,
        seed: int | None = None,
    ) -> None:
        self._allocator, self._objective, self._seed = allocator, objective, seed
        self._base = SurrogateSampler(seed=seed) if base is None else base
        self._context = SamplerContext()
        self._bounds = Problem({})  # without losses
        self._problem: Problem | None = None
        self._front: list[Allocation] = []
        self._corrected: list[Allocation] = []
        self._n_learned = 0  # observations that `_corrected` was solved with
        self._picks: dict[int, Params] = {}  # by the number of the running trial

    def bind(self, context: SamplerContext) -> None:
        """Stores the context and checks the budgets; the losses are measured for the first proposal.

        Raises:
            ConfigError: The allocator does not fit the study, or no allocation keeps the budgets.
        """
        if self._objective >= len(context.directions):
            raise ConfigError(
                f"sampler.objective={self._objective}, but the study has {len(context.directions)} objectives"
            )
        self._context = context
        if isinstance(self._base, Bindable):
            self._base.bind(context)
        if self._allocator is not None:
            self._bounds = self._allocator.check(context.allocation)

    def admits(self, params: Params) -> bool:
        """Whether a candidate that others propose keeps the budgets, and the widths that are fixed or tied."""
        widths = self._widths(params, self._bounds)
        return self._allocator is None or (widths is not None and self._bounds.admits(widths))

    def explanation(self) -> Mapping[str, Any]:
        """Returns what led to the proposals; empty before the first one."""
        if self._allocator is None or self._problem is None:
            return {}
        return self._allocator.explanation(self._problem, self._context.allocation)

    # -- Optuna's interface ------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the knobs that `base` proposes together, without those that the pick has."""
        if self._allocator is not None and trial.number not in self._picks:
            self._picks[trial.number] = self._pick(study, trial)
        space = self._base.infer_relative_search_space(study, trial)
        return {name: kind for name, kind in space.items() if name not in self._picks.get(trial.number, {})}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the values of `base`."""
        return self._base.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns the pick's value, or that of `base`."""
        pick = self._picks.get(trial.number, {})
        if param_name in pick and contains(param_distribution, pick[param_name]):
            return pick[param_name]
        return self._base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Prepares `base`."""
        self._base.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Removes the pick: from now on the finished trial itself has the candidate."""
        self._picks.pop(trial.number, None)
        self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Draws a new seed, for samplers that run in parallel."""
        self._seed = None
        self._base.reseed_rng()

    # -- the choice --------------------------------------------------------------------------------------

    def _found_problem(self) -> Problem:
        """Returns the problem; the first time its losses are measured, and its front is solved."""
        assert self._allocator is not None
        if self._problem is None:
            self._problem = self._allocator.problem(self._context.allocation)
            self._front = [solution.widths for solution in self._allocator.solutions(self._problem)]
        return self._problem

    def _pick(self, study: Study, trial: FrozenTrial) -> Params:
        """Returns the knobs that are decided for a trial; empty leaves all to `base`."""
        problem, others = self._found_problem(), other_trials(study, trial)
        taken = {_key(widths) for t in others if (widths := self._widths(t.params, problem)) is not None}
        taken |= {_key(w) for pick in self._picks.values() if (w := self._widths(pick, problem)) is not None}
        best = self._best(study, others, problem, trial)
        rest = {} if best is None else {n: v for n, v in best.params.items() if n not in problem.losses}
        if new := [widths for widths in spread(self._front) if _key(widths) not in taken]:
            return {**rest, **self._params(new[0])}
        others_turn = best is not None and rest and trial.number % 2
        refined = [] if others_turn else self._refined(problem, self._observations(study, others, problem))
        if new := [widths for widths in spread(refined) if _key(widths) not in taken]:
            return {**rest, **self._params(new[0])}
        # where nothing new keeps the budgets, `base` is to find other knobs, not larger models
        bounded = others_turn or len(problem.budgets) > 1
        return self._params(self._widths(best.params, problem) or {}) if best and rest and bounded else {}

    def _refined(self, problem: Problem, observations: Sequence[Observation]) -> list[Allocation]:
        """Returns the front of corrected losses, solved again once there are a quarter more observations than the last time."""
        assert self._allocator is not None
        if len(observations) >= LEARN_AGAIN * max(self._n_learned, 1):
            better = corrected(problem, observations, list(pairwise(problem.losses)))
            self._corrected = [solution.widths for solution in self._allocator.solutions(better)]
            self._n_learned = len(observations)
        return self._corrected

    def _best(
        self, study: Study, others: Sequence[FrozenTrial], problem: Problem, trial: FrozenTrial
    ) -> FrozenTrial | None:
        """Returns one of the trials on the front with an allocation, another one for each proposal; None if there is none."""
        complete = [
            t
            for t in others
            if t.state == TrialState.COMPLETE and self._widths(t.params, problem) is not None
        ]
        kept = [t for t in complete if problem.admits(self._widths(t.params, problem) or {})] or complete
        feasible = [t for t in kept if all(excess <= 0 for excess in t.constraints.values())] or kept
        if not feasible:
            return None
        values = np.array([t.values for t in feasible]) * signs_of(study.directions)
        values = np.nan_to_num(values, nan=-np.inf)
        beaten = [bool(((values >= row).all(axis=1) & (values > row).any(axis=1)).any()) for row in values]
        best = [t for t, is_beaten in zip(feasible, beaten, strict=True) if not is_beaten]
        return best[int(self._rng(trial).integers(len(best)))]

    def _observations(
        self, study: Study, others: Sequence[FrozenTrial], problem: Problem
    ) -> list[Observation]:
        """Returns the allocations of the complete trials with the objective as a loss."""
        sign = -signs_of(study.directions)[self._objective]
        found: list[Observation] = []
        for t in others:
            widths = self._widths(t.params, problem)
            if t.state == TrialState.COMPLETE and widths is not None:
                found.append((widths, float(sign * t.values[self._objective])))
        return found

    def _widths(self, params: Mapping[str, Any], problem: Problem) -> Allocation | None:
        """Returns the allocation of a candidate; None if it lacks a unit, or has another width than the problem's."""
        knobs = {} if self._context.allocation is None else self._context.allocation.knobs
        found = {
            n: knobs[n].widths.get(params.get(n)) if n in knobs else params.get(n) for n in problem.losses
        }
        widths = {n: w for n, w in found.items() if w is not None and w in problem.losses[n]}
        return widths if len(widths) == len(problem.losses) else None

    def _params(self, widths: Mapping[str, int]) -> dict[str, Any]:
        """Returns the parameters of an allocation."""
        knobs = {} if self._context.allocation is None else self._context.allocation.knobs
        return {
            n: next(p for p, v in knobs[n].widths.items() if v == w) if n in knobs else w
            for n, w in widths.items()
        }

    def _rng(self, trial: FrozenTrial) -> np.random.Generator:
        return np.random.default_rng(None if self._seed is None else [self._seed, trial.number])


def spread(front: Sequence[Allocation]) -> list[Allocation]:
    """Returns a front in an order of which every beginning is spread over the whole: ends, middle, quarters, ..."""
    n, order = len(front), [0, len(front) - 1]
    step = n
    while step > 1:
        step = (step + 1) // 2
        order.extend(range(step, n, step))
    order.extend(range(n))
    return [front[i] for i in dict.fromkeys(i for i in order if 0 <= i < n)]


def _key(widths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(widths.items()))

"""Base class of samplers that choose whole candidates, and functions that read a study."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.samplers.candidates.context import Params, SamplerContext
from search.samplers.candidates.pools import contains


class PickSampler(BaseSampler):
    """Picks one candidate per trial, of those in the context, and returns its values knob by knob.

    Args:
        seed: Seed of all draws.
    """

    def __init__(self, seed: int | None) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed)
        self._context = SamplerContext()
        self._picks: dict[int, Params] = {}  # by the number of the running trial

    @abstractmethod
    def _bound_pick(self, study: Study, trial: FrozenTrial) -> Params:
        """Returns the next candidate of those in the context; empty if there is none."""

    @property
    def _bound(self) -> bool:
        return self._context.pool is not None or self._context.draw is not None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the knobs that all finished trials share; none if the context has candidates."""
        if self._bound:
            return {}  # `sample_independent` returns the picked candidate's values knob by knob
        return intersection_search_space(study.get_trials(deepcopy=False))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns the picked candidate's value for the knob, or a random one if it has none."""
        if self._bound:
            if trial.number not in self._picks:
                self._picks[trial.number] = self._bound_pick(study, trial)
            pick = self._picks[trial.number]
            if param_name in pick and contains(param_distribution, pick[param_name]):
                return pick[param_name]
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Removes the pick: from now on the finished trial itself has the candidate."""
        self._picks.pop(trial.number, None)

    def reseed_rng(self) -> None:
        """Draws a new seed, for samplers that run in parallel."""
        self._rng = np.random.default_rng()
        self._random.reseed_rng()


def other_trials(study: Study, trial: FrozenTrial | None = None) -> list[FrozenTrial]:
    """Returns all trials except this one and those that are waiting, oldest first."""
    trials = study.get_trials(deepcopy=False)
    return [
        t for t in trials if (trial is None or t.number != trial.number) and t.state != TrialState.WAITING
    ]


def signs_of(directions: Sequence[StudyDirection]) -> NDArray[np.float64]:
    """Returns 1 for each objective to be maximised and -1 for the others, `(n_objectives,)`."""
    return np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in directions])

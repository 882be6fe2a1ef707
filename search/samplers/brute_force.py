"""Brute force: every candidate of a finite define-by-run space once, in random order."""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.samplers.candidates.proposals import ProposalTree


class BruteForceSampler(BaseSampler):
    """Proposes every candidate exactly once; after that, random ones again.

    Unlike `optuna.samplers.BruteForceSampler` it works with ask and tell, keeps its tree of proposals from trial to
    trial (a proposal costs the depth of the tree, not the number of trials), and leaves the end of the study to the
    caller. Finished trials of any state and running ones count as proposed. A continuous knob cannot be
    enumerated: it is drawn at random.

    Args:
        seed: Seed of the order.
        stop_when_done: Whether to stop `study.optimize` after the last candidate.
    """

    def __init__(self, seed: int | None = None, stop_when_done: bool = False) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed)
        self._stop_when_done = stop_when_done
        self._tree = ProposalTree()

    def exhausted(self, study: Study) -> bool:
        """Whether every candidate has been proposed (running trials included)."""
        self._tree.sync(study)
        return self._tree.exhausted

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns an empty space: the knobs are known only as they are asked for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns no values, see `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns a value under which some candidate was not proposed yet."""
        node = self._tree.descend(study, trial, param_name, param_distribution)
        if node.left:
            value = param_distribution.to_external_repr(node.left[self._choose(len(node.left))])
        else:  # all proposed, or continuous
            value = self._random.sample_independent(study, trial, param_name, param_distribution)
        self._tree.reserve(node, value)
        return value

    def _choose(self, n_left: int) -> int:
        """Returns the position of the next value among the `n_left` that are left."""
        return int(self._rng.integers(n_left))

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Stops the optimisation after the last candidate if `stop_when_done` is set."""
        if self._stop_when_done and self.exhausted(study):
            study.stop()

    def reseed_rng(self) -> None:
        """Draws a new seed, for samplers that run in parallel."""
        self._rng = np.random.default_rng()
        self._random.reseed_rng()

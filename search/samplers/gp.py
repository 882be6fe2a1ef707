"""Gaussian process: for expensive trials over few, mostly numeric knobs."""

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from spaces.errors import ConfigError


class GpSampler(GPSampler):
    """Optuna's `GPSampler` with fewer local searches for the maximum of the acquisition function.

    Optuna starts ten local searches per proposal, each over every choice of every knob. With several
    objectives and constraints over categorical knobs that takes seconds per proposal. Two starts find nearly
    as good a proposal. Knobs that are not in every trial are drawn at random.

    Args:
        n_startup_trials: Random trials before the first model.
        n_local_search: Local searches for the highest acquisition value, at least 2 (Optuna: 10).
        n_qmc_samples: Samples of the expected hypervolume improvement (Optuna: 128).
        seed: Seed of all draws.

    Raises:
        ConfigError: `n_local_search` is below 2.
    """

    def __init__(
        self,
        n_startup_trials: int = 5,
        n_local_search: int = 2,
        n_qmc_samples: int = 64,
        seed: int | None = None,
    ) -> None:
        if n_local_search < 2:  # one start is the best trial so far
            raise ConfigError(f"sampler.n_local_search must be at least 2, not {n_local_search}")
        super().__init__(n_startup_trials=n_startup_trials, seed=seed, warn_independent_sampling=False)
        # Optuna has no argument for these; a test fails if it renames the attributes
        self._n_local_search = n_local_search
        self._n_qmc_samples_ehvi = n_qmc_samples

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the next proposal, computed in one thread: the tensors are so small that more threads only wait."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)

"""Gaussian process: for expensive trials over few knobs, best with numeric ones."""

from optuna.samplers import GPSampler


class GpSampler(GPSampler):
    """Optuna's `GPSampler`, with its acquisition searched less thoroughly.

    Optuna starts ten local searches a proposal, each over every choice of every knob; with several objectives and
    constraints on choices that is seconds a proposal, minutes for two dozen. Two starts find nearly as good a proposal.
    Knobs that are not in every trial are drawn at random.

    Args:
        n_startup_trials: Random trials before the first model.
        n_local_search: Starts of the search for the best acquisition (Optuna: 10).
        n_qmc_samples: Samples behind the expected hypervolume improvement (Optuna: 128).
        seed: Seed of all draws.
    """

    def __init__(
        self,
        n_startup_trials: int = 5,
        n_local_search: int = 2,
        n_qmc_samples: int = 64,
        seed: int | None = None,
    ) -> None:
        super().__init__(n_startup_trials=n_startup_trials, seed=seed, warn_independent_sampling=False)
        # Optuna has no argument for these; a test notices if it renames them
        self._n_local_search = n_local_search
        self._n_qmc_samples_ehvi = n_qmc_samples

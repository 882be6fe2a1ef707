"""CMA-ES: an evolution strategy for one objective over numeric knobs."""

import warnings
from collections.abc import Sequence

from optuna.distributions import CategoricalDistribution
from optuna.samplers import CmaEsSampler as OptunaCmaEsSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.samplers.candidates.context import SamplerContext
from spaces.errors import ConfigError
from spaces.extras import check_extra


class CmaEsSampler(OptunaCmaEsSampler):
    """Optuna's `CmaEsSampler` that refuses studies it cannot search before the first trial.

    Categorical knobs, and knobs that are not in every trial, are drawn at random. Constraints are not used:
    an infeasible trial counts by its objective.

    Args:
        n_startup_trials: Random trials before the first generation.
        popsize: Candidates per generation; None takes CMA-ES's default.
        seed: Seed of all draws.

    Raises:
        ConfigError: The package `cmaes` is missing.
    """

    def __init__(
        self, n_startup_trials: int = 1, popsize: int | None = None, seed: int | None = None
    ) -> None:
        check_extra("cmaes", "sampler=cmaes")
        super().__init__(
            n_startup_trials=n_startup_trials,
            popsize=popsize,
            seed=seed,
            warn_independent_sampling=False,  # documented above; otherwise one line per knob and trial
        )

    def bind(self, context: SamplerContext) -> None:
        """Checks the study.

        Raises:
            ConfigError: There are several objectives, or all knobs are categorical.
        """
        if len(context.directions) > 1:
            raise ConfigError(
                f"sampler=cmaes searches one objective, but the study has {len(context.directions)}; "
                "use tpe, gp, nsga2, nsga3 or quantune, or declare one objective"
            )
        kinds = context.distributions.values()
        if kinds and all(isinstance(kind, CategoricalDistribution) for kind in kinds):
            raise ConfigError(
                "sampler=cmaes needs at least one `int` or `float` knob, but the space has only choices; "
                "use tpe, nsga2 or quantune"
            )

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Records the trial's value."""
        with warnings.catch_warnings():
            # documented above; the study itself applies the constraints
            warnings.filterwarnings("ignore", "Constraints have been set", UserWarning)
            super().after_trial(study, trial, state, values)

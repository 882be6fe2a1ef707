"""NSGA-III: an evolutionary algorithm that spreads the front along reference directions."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import NSGAIIISampler


class Nsga3Sampler(NSGAIIISampler):
    """Optuna's `NSGAIIISampler` with a population that fits small budgets.

    Args:
        population_size: Candidates per generation. The first generation is random.
        dividing_parameter: Reference directions are spaced at 1 / this along each objective.
        seed: Seed of all draws.
    """

    def __init__(
        self, population_size: int = 50, dividing_parameter: int = 3, seed: int | None = None
    ) -> None:
        with warnings.catch_warnings():
            # Optuna marks the class as experimental; the conformance tests check its interface
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(
                population_size=population_size, dividing_parameter=dividing_parameter, seed=seed
            )

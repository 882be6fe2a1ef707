"""Quasi-Monte Carlo: a low-discrepancy sequence that fills the space more evenly than random draws."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import QMCSampler


class QmcSampler(QMCSampler):
    """Optuna's `QMCSampler`, scrambled so that the seed matters, and silent about what it cannot avoid.

    Knobs that are not in every trial are drawn at random.

    Args:
        qmc_type: "sobol" or "halton".
        scramble: Whether the sequence is randomised by the seed.
        seed: Seed of the scrambling and of the random draws.
    """

    def __init__(self, qmc_type: str = "sobol", scramble: bool = True, seed: int | None = None) -> None:
        with warnings.catch_warnings():
            # Optuna calls the class experimental; its interface is checked by our conformance tests
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(
                qmc_type=qmc_type,
                scramble=scramble,
                seed=seed,
                # both say nothing that a user of a conditional space could change
                warn_asynchronous_seeding=False,
                warn_independent_sampling=False,
            )

"""Quasi-Monte Carlo: a low-discrepancy sequence that fills the space more evenly than random draws."""

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import QMCSampler


class QmcSampler(QMCSampler):
    """Optuna's `QMCSampler`, scrambled by the seed, without warnings that a user cannot act on.

    Knobs that are not in every trial are drawn at random.

    Args:
        qmc_type: "sobol" or "halton".
        scramble: Whether the sequence is randomised by the seed.
        seed: Seed of the scrambling and of the random draws.
    """

    def __init__(self, qmc_type: str = "sobol", scramble: bool = True, seed: int | None = None) -> None:
        with warnings.catch_warnings():
            # Optuna marks the class as experimental; the conformance tests check its interface
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(
                qmc_type=qmc_type,
                scramble=scramble,
                seed=seed,
                # a user of a conditional space could change neither
                warn_asynchronous_seeding=False,
                warn_independent_sampling=False,
            )

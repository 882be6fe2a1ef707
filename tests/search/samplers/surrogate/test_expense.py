"""Proposals where some candidates share an expensive part and the budget is time."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from search.samplers.candidates.context import SamplerContext
from search.samplers.surrogate.sampler import SurrogateSampler

WIDTHS, BITS = tuple(range(8)), tuple(range(6))
POOL = [{"width": w, "bits": b} for w in WIDTHS for b in BITS]
KNOBS = {"width": CategoricalDistribution(WIDTHS), "bits": CategoricalDistribution(BITS)}


class Shared:
    """Training a width takes `training_s`, a trial besides it 1 second."""

    def __init__(self, training_s):
        self.training_s, self.trained = training_s, {}

    rest_s = 1.0

    def keys(self, candidates):
        return [str(c["width"]) for c in candidates]


def searched(expense, n_trials=16, seed=0, directions=("maximize",)):
    """Returns the widths in the order in which they were trained, over some trials, and the seconds in all."""
    sampler = SurrogateSampler(seed=seed)
    sampler.bind(SamplerContext(pool=POOL, directions=directions, distributions=KNOBS, expense=expense))
    study = optuna.create_study(directions=list(directions), sampler=sampler)
    trained, seconds = {}, 0.0
    for _ in range(n_trials):
        trial = study.ask()
        width, bits = trial.suggest_categorical("width", WIDTHS), trial.suggest_categorical("bits", BITS)
        values = [np.sin(width) + 0.3 * np.cos(bits), 0.3 * bits - width][: len(directions)]
        study.tell(trial, values)
        new = str(width) not in trained
        seconds += 1.0 + (100.0 if new else 0.0)
        trained.setdefault(str(width), {"width": width, "bits": bits})
        if expense is not None:
            expense.trained.setdefault(str(width), (trained[str(width)], expense.training_s))
    return list(trained), seconds


@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "maximize")])
def test_what_is_trained_is_varied_before_the_next_training(directions):
    by_time, seconds = searched(Shared(100.0), directions=directions)
    by_trials, more = searched(None, directions=directions)
    assert len(by_time) < len(by_trials)
    assert seconds < more


def test_a_training_that_costs_nothing_changes_nothing():
    free, seconds = searched(Shared(1e-9))
    plain, same = searched(None)
    assert (free, seconds) == (plain, same)


def test_a_new_training_is_made_once_its_gain_is_worth_it():
    trained, _ = searched(Shared(3.0), n_trials=24)
    assert len(trained) > 1

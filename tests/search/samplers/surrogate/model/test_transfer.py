"""What other tasks' measurements count for: collapses, reversed and shuffled tasks, other levels and units."""

from dataclasses import replace
from itertools import product

import numpy as np
import optuna
import pytest

from search.samplers.candidates.context import WEIGHTS, KnowledgeRow, SamplerContext
from search.samplers.surrogate.sampler import SurrogateSampler

KNOBS = {"a": (0, 1, 2, 3), "b": (0, 1, 2, 3), "c": ("x", "y", "z")}
POOL = [dict(zip(KNOBS, values, strict=True)) for values in product(*KNOBS.values())]


def top1(params, level=90.0):
    drop = (3 - params["a"]) ** 2 + 2 * (3 - params["b"]) + 4 * (params["c"] != "y")
    return max(level - 1 - 1.5 * drop, 0.1)


def task(name, level, seed):
    rng = np.random.default_rng(seed)
    return [KnowledgeRow(name, p, top1(p, level) + rng.normal(0, 0.3), baseline=level) for p in POOL]


SOURCES = [*task("net a", 92.0, 0), *task("net b", 75.0, 1), *task("net c", 84.0, 2)]
BEST = max(POOL, key=top1)


def without_baseline(rows):
    return [replace(row, baseline=None) for row in rows]


def changed(rows, change):
    """Returns the rows with the values of each task changed."""
    found = []
    for name in dict.fromkeys(row.task for row in rows):
        some = [row for row in rows if row.task == name]
        values = change(np.array([row.value for row in some]))
        found += [replace(row, value=float(value)) for row, value in zip(some, values, strict=True)]
    return found


def search(knowledge, value, n, baseline=90.0, seed=0, direction="maximize"):
    """Returns the candidates of `n` trials, and the weights of knowledge in their choice."""
    sampler = SurrogateSampler(seed=seed)
    sampler.bind(
        SamplerContext(pool=POOL, directions=(direction,), knowledge=knowledge, baselines=(baseline,))
    )
    study = optuna.create_study(direction=direction, sampler=sampler)
    found = []
    for _ in range(n):
        trial = study.ask()
        found.append({name: trial.suggest_categorical(name, values) for name, values in KNOBS.items()})
        study.tell(trial, value(found[-1]))
    weights = [t.user_attrs[WEIGHTS]["knowledge"] for t in study.trials if WEIGHTS in t.user_attrs]
    return found, weights


def is_near(params):
    return sorted(map(top1, POOL)).index(top1(params)) >= 0.7 * len(POOL)


@pytest.mark.parametrize("known", [True, False])
def test_one_collapsed_trial_does_not_turn_the_ranking_around(known):
    rows = SOURCES if known else without_baseline(SOURCES)

    def collapsed(params):
        return 0.1 if params == BEST else top1(params)

    found, weights = search(rows, collapsed, 6, 90.0 if known else None)
    assert found[0] == BEST
    assert min(weights) > 0.5
    assert all(map(is_near, found[1:4]))
    assert max(map(collapsed, found)) == max(map(collapsed, POOL))


@pytest.mark.parametrize("known", [True, False])
def test_reversed_tasks_lose_their_weight(known):
    rows = changed(SOURCES if known else without_baseline(SOURCES), lambda v: v.max() + v.min() - v)
    _, weights = search(rows, top1, 24, 90.0 if known else None)
    assert weights[0] > 0.5
    assert max(weights[4:]) < 0.1  # what they rank first collapses again and again


def test_shuffled_tasks_are_not_learned_from():
    ignored = [
        not search(changed(SOURCES, np.random.default_rng(seed).permutation), top1, 1)[1]
        for seed in range(20)
    ]
    assert sum(ignored) >= 15  # by chance, some predict each other a little


def test_trials_say_how_much_the_other_tasks_counted():
    weights = search(SOURCES, top1, 5)[1]
    assert len(weights) == 5
    assert weights[-1] >= weights[0] > 0.5


def test_a_task_of_a_lower_level_is_found_without_its_float_model():
    found, _ = search(without_baseline(SOURCES), lambda p: top1(p, 45.0), 3, None)
    assert BEST in found


def test_rates_of_very_different_devices_are_compared_by_their_ratio():
    def rate(params, scale):
        return scale * np.exp(-0.5 * (3 - params["a"]) - 0.3 * (3 - params["b"]))

    rows = [KnowledgeRow(f"{scale}", p, rate(p, scale)) for scale in (10.0, 20_000.0) for p in POOL]
    found, _ = search(rows, lambda p: rate(p, 300.0), 3, None)
    assert any(p["a"] == 3 and p["b"] == 3 for p in found)

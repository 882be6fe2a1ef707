"""How many trials each sampler needs on Quantune's table (arXiv 2202.05048): six CNNs, leave one model out.

Run from the root of the repository::

    python tests/benchmarks/quantune_table.py --table ../shared/data/tables/quantune_six_cnns.csv --seeds 20

A configuration that was measured before is answered from the study and does not count as a trial. Prints, per model, the
mean number of trials until the best configuration was measured, and over the models the mean and the geometric mean
with 95 % intervals, beside the reference figures.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from rich.console import Console

from search.knowledge.table import read_table
from search.samplers.brute_force import BruteForceSampler
from search.samplers.context import SamplerContext
from search.samplers.grid import GridSampler
from search.samplers.quantune import QuantuneSampler
from search.sweep import OVER_TASKS, Row, Run, print_rows, summarise
from search.tabular import TabularProblem

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "brute_force": lambda seed: BruteForceSampler(seed=seed),
    "grid": lambda seed: GridSampler(seed=seed),
    "tpe": lambda seed: TPESampler(n_startup_trials=5, seed=seed),
    "quantune": lambda seed: QuantuneSampler(seed=seed),
    "quantune_transfer": lambda seed: QuantuneSampler(transfer=True, seed=seed),
}
# mean (geometric mean) over the models of the trials to the best: public table, duplicates not counted, random ties
REFERENCE = {
    "random": "30.9 (28.5)",
    "grid": "33.7 (31.4)",
    "tpe": "19.4 (18.2)",
    "quantune": "20.6 (18.4)",
    "quantune_transfer": "15.6 (8.3)",
}
MISSES_IN_A_ROW = 32  # duplicates, before a random candidate is measured


def run(problem: TabularProblem, sampler: BaseSampler, seed: int) -> dict[str, int | None]:
    """Searches until a best row is measured; returns `TabularProblem.progress`."""
    study = optuna.create_study(direction=problem.direction, sampler=sampler)
    if hasattr(sampler, "bind"):
        sampler.bind(
            SamplerContext(problem.candidates, problem.knowledge, problem.descriptors, (problem.direction,))
        )
    rng, choices = np.random.default_rng([seed, 1]), problem.space_config()
    measured: dict[int, float] = {}
    misses = 0
    while len(measured) < len(problem.rows):
        if misses == MISSES_IN_A_ROW:
            left = [row for row in problem.rows if row.index not in measured]
            study.enqueue_trial(dict(left[int(rng.integers(len(left)))].knobs))
        trial = study.ask()
        values = {
            name: trial.suggest_categorical(name, domain["choices"]) for name, domain in choices.items()
        }
        row = problem.row(values) or problem.nearest(values, measured.keys())
        assert row is not None  # there are rows left
        value = row.metrics[problem.metric]
        study.tell(trial, value)
        misses = misses + 1 if row.index in measured else 0
        measured[row.index] = value
        if misses == 0 and value == problem.best_value:
            break
    return problem.progress(list(measured.values()))


def measure(problems: Sequence[TabularProblem], name: str, n_seeds: int) -> list[Run]:
    """Runs one sampler on all models with all seeds."""
    return [
        Run(name, p.task, len(p.rows), run(p, SAMPLERS[name](seed), seed))
        for p in problems
        for seed in range(n_seeds)
    ]


def reference_line(rows: Sequence[Row], name: str) -> str:
    """Returns our figure to the best beside the reference: mean (geometric mean) over the models."""
    mean, geometric = (
        next(r for r in rows if (r.sampler, r.task, r.target) == (name, task, "trials_to_best"))
        for task in OVER_TASKS
    )
    ours = f"{mean.mean:.1f} [{mean.low:.1f}, {mean.high:.1f}] ({geometric.mean:.1f})"
    return f"{name:18} {ours:28} reference {REFERENCE.get(name, '-')}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs all searches, prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", default="random,tpe,quantune,quantune_transfer")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problems = [TabularProblem(given.table, task) for task in read_table(given.table).tasks]
    runs: list[Run] = []
    for name in given.samplers.split(","):
        began = time.monotonic()
        runs += measure(problems, name, given.seeds)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    rows = summarise(runs)
    print_rows(rows, Console(width=120))
    for name in given.samplers.split(","):
        print(reference_line(rows, name))


if __name__ == "__main__":
    main()

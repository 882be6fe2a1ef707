"""How many trials each sampler needs on Quantune's table (arXiv 2202.05048): six CNNs, leave one model out.

Run from the root of the repository::

    python tests/benchmarks/quantune_table.py --table ../shared/data/tables/quantune_six_cnns.csv --seeds 20

`surrogate` has the measurements of the other five models as knowledge, `surrogate_alone` has none, and
`surrogate_reversed` has them with the ranking reversed, which shows the cost of wrong knowledge.

A configuration that was measured before is answered from the study and does not count as a trial. Prints, per model, the
mean number of trials until the best configuration was measured, and over the models the mean and the geometric mean
with 95 % intervals, beside the reference figures.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from rich.console import Console

from search.cli.sweep import OVER_TASKS, Row, Run, counted_table, summarise
from search.knowledge.table import read_table
from search.planning.tabular.goal import TableGoal
from search.planning.tabular.problem import TabularProblem
from search.record.results import Objective
from search.samplers.brute_force import BruteForceSampler
from search.samplers.candidates.context import KnowledgeRow, SamplerContext
from search.samplers.grid import GridSampler
from search.samplers.quantune import QuantuneSampler
from search.samplers.surrogate.sampler import SurrogateSampler

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "brute_force": lambda seed: BruteForceSampler(seed=seed),
    "grid": lambda seed: GridSampler(seed=seed),
    "tpe": lambda seed: TPESampler(n_startup_trials=5, seed=seed),
    "quantune": lambda seed: QuantuneSampler(seed=seed),
    "quantune_transfer": lambda seed: QuantuneSampler(transfer=True, seed=seed),
    "surrogate": lambda seed: SurrogateSampler(seed=seed),
    "surrogate_alone": lambda seed: SurrogateSampler(transfer=False, seed=seed),
    "surrogate_reversed": lambda seed: SurrogateSampler(seed=seed),
}
# mean (geometric mean) over the models of the trials to the best: public table, duplicates not counted, random ties
REFERENCE = {
    "random": "30.9 (28.5)",
    "grid": "33.7 (31.4)",
    "tpe": "19.4 (18.2)",
    "quantune": "20.6 (18.4)",
    "quantune_transfer": "15.6 (8.3)",
    "surrogate": "4.3 (3.6): boosted trees on the drop from float, clipped and tuned on these six models",
    "surrogate_alone": "13.2 (12.4): random forest on the logarithm of the drop, expected improvement",
}
MISSES_IN_A_ROW = 32  # duplicates, before a random candidate is measured


COLUMN = "metric.top1"


def context_of(problem: TabularProblem, reverse: bool) -> SamplerContext:
    """Returns the context of a sampler: the other models' rows and every float model's result."""
    knowledge = problem.knowledge(COLUMN)
    return SamplerContext(
        problem.candidates,
        reversed_rows(knowledge) if reverse else knowledge,
        problem.descriptors,
        ("maximize",),
        baselines=(problem.baseline(COLUMN),),
    )


def reversed_rows(rows: Sequence[KnowledgeRow]) -> list[KnowledgeRow]:
    """Returns the rows with every task's values mirrored between its best and its worst."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.task, []).append(row.value)
    ends = {task: max(found) + min(found) for task, found in values.items()}
    return [replace(row, value=ends[row.task] - row.value) for row in rows]


def run(
    problem: TabularProblem, sampler: BaseSampler, seed: int, context: SamplerContext | None = None
) -> dict[str, int | None]:
    """Searches until a best row is measured; returns `TableGoal.progress_of`."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    goal = TableGoal(problem, [Objective(COLUMN, "maximize")])
    if hasattr(sampler, "bind"):
        sampler.bind(context or context_of(problem, False))
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
        value = problem.values(row)[COLUMN]
        study.tell(trial, value)
        misses = misses + 1 if row.index in measured else 0
        measured[row.index] = value
        if misses == 0 and value == goal.best_value:
            break
    return goal.progress_of(list(measured.values()))


def measure(problems: Sequence[TabularProblem], name: str, n_seeds: int) -> list[Run]:
    """Runs one sampler on all models with all seeds."""
    contexts = {p.task: context_of(p, name.endswith("_reversed")) for p in problems}
    return [
        Run(name, p.task, len(p.rows), run(p, SAMPLERS[name](seed), seed, contexts[p.task]))
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
    parser.add_argument(
        "--samplers", default=",".join(n for n in SAMPLERS if n not in ("grid", "brute_force"))
    )
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problems = [TabularProblem(given.table, task) for task in read_table(given.table).tasks]
    runs: list[Run] = []
    for name in given.samplers.split(","):
        began = time.monotonic()
        runs += measure(problems, name, given.seeds)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    rows = summarise(runs)
    Console(width=120).print(counted_table(rows))
    for name in given.samplers.split(","):
        print(reference_line(rows, name))


if __name__ == "__main__":
    main()

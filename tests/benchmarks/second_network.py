"""How many full evaluations the next network needs, once others were searched: with their trials as knowledge, and without.

Run from the root of the repository, with tables of measured candidates (`task`, `knob.*`, `metric.*`; one file a network, or
one for all, in the order in which the networks are searched)::

    python tests/benchmarks/second_network.py --tables resnet20.csv resnet32.csv mobilenet_v2.csv --seeds 20

The first network is searched from scratch with a budget of `--budget` trials, as a user's study would be. Its trials (not its
table) are what the second starts with; the third starts with both. The same search from scratch, with the same seed, is
beside it. A search counts its trials until one is within `--within` metric points of the best row; one that was measured
before is answered from the study and does not count. `--reversed` turns the knowledge upside down: what was worst is said
to have been best.

Prints, per network, means with 95 % intervals over seeds, medians, and the ratio of the means (its interval by bootstrap
over seeds); at most half is wanted.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from rich.console import Console
from rich.table import Table

from search.knowledge.csv import trial_of
from search.knowledge.table import TableRow, read_table
from search.samplers.context import KnowledgeRow, SamplerContext
from search.samplers.quantune import QuantuneSampler
from search.sweep import interval
from search.tabular import TabularProblem
from spaces.errors import unknown_name

MISSES_IN_A_ROW = 32  # duplicates, before a random candidate is measured
RESAMPLES = 2000


@dataclass(frozen=True)
class Goal:
    """When a search ends.

    Attributes:
        most: After so many trials in any case.
        within: With a trial this near to the best row, in metric points; None goes on.
    """

    most: int
    within: float | None = None


def made(name: str, seed: int) -> BaseSampler:
    """Returns the sampler that learns."""
    if name == "quantune":
        return QuantuneSampler(transfer=True, seed=seed)
    from search.samplers.surrogate.sampler import SurrogateSampler

    return SurrogateSampler(seed=seed)


def search(
    problem: TabularProblem, sampler: BaseSampler, knowledge: Sequence[KnowledgeRow], goal: Goal, seed: int
) -> list[TableRow]:
    """Returns the rows that a search measured, in their order."""
    assert hasattr(sampler, "bind")
    sampler.bind(SamplerContext(problem.candidates, knowledge, problem.descriptors, (problem.direction,)))
    study = optuna.create_study(direction=problem.direction, sampler=sampler)
    rng, choices = np.random.default_rng([seed, 1]), problem.space_config()
    measured: dict[int, TableRow] = {}
    misses = 0
    while len(measured) < min(goal.most, len(problem.rows)):
        if misses == MISSES_IN_A_ROW:
            left = [row for row in problem.rows if row.index not in measured]
            study.enqueue_trial(dict(left[int(rng.integers(len(left)))].knobs))
        trial = study.ask()
        values = {name: trial.suggest_categorical(name, d["choices"]) for name, d in choices.items()}
        row = problem.row(values) or problem.nearest(values, measured.keys())
        assert row is not None  # there are rows left
        value = row.metrics[problem.metric]
        study.tell(trial, value)
        misses = misses + 1 if row.index in measured else 0
        measured[row.index] = row
        if goal.within is not None and abs(problem.best_value - value) <= goal.within + 1e-9:
            break
    return list(measured.values())


def as_knowledge(problem: TabularProblem, rows: Sequence[TableRow]) -> list[KnowledgeRow]:
    """Returns what a study that measured these rows teaches."""
    return [
        KnowledgeRow(
            problem.task,
            row.knobs,
            row.metrics[problem.metric],
            problem.descriptors,
            trial_of(row).baseline.get(f"metric.{problem.metric}"),
        )
        for row in rows
    ]


def upside_down(rows: Sequence[KnowledgeRow]) -> list[KnowledgeRow]:
    """Returns the rows with the values in reversed order: the best row gets the worst value."""
    order = np.argsort([row.value for row in rows], kind="stable")
    return [replace(rows[a], value=rows[b].value) for a, b in zip(order, order[::-1], strict=True)]


def chain(
    problems: Sequence[TabularProblem], name: str, given: argparse.Namespace, seed: int
) -> list[list[int]]:
    """Returns, for every network, the trials from scratch and with the knowledge of those before it."""
    known: list[KnowledgeRow] = []
    counts = []
    goal = Goal(given.most, given.within)
    for problem in problems:
        scratch = len(search(problem, made(name, seed), (), goal, seed))
        informed = len(search(problem, made(name, seed), known, goal, seed)) if known else scratch
        counts.append([scratch, informed])
        if problem is not problems[-1]:
            rows = search(problem, made(name, seed), known, Goal(given.budget), seed)
            taught = as_knowledge(problem, rows)
            known += upside_down(taught) if given.reversed else taught
    return counts


def ratio_interval(counts: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the ratio of means of `(n_seeds, 2)` counts."""
    drawn = counts[rng.integers(len(counts), size=(RESAMPLES, len(counts)))].mean(axis=1)
    low, high = np.quantile(drawn[:, 1] / drawn[:, 0], [0.025, 0.975])
    return float(low), float(high)


def printed(problems: Sequence[TabularProblem], counts: np.ndarray, given: argparse.Namespace) -> None:
    """Prints counts `(n_seeds, n_networks, 2)`."""
    table = Table(title=f"trials to within {given.within:g} points of the best, {len(counts)} seeds")
    for heading in ("network", "rows", "from scratch", "median", "with knowledge", "median", "ratio"):
        table.add_column(heading)
    rng = np.random.default_rng(0)
    for at, problem in enumerate(problems):
        cells = [problem.task, str(len(problem.rows))]
        for kind in range(2):
            column = counts[:, at, kind]
            low, high = interval(column.tolist())
            cells += [f"{column.mean():.1f} [{low:.1f}, {high:.1f}]", f"{np.median(column):g}"]
        if at:
            low, high = ratio_interval(counts[:, at], rng)
            ratio = counts[:, at, 1].mean() / counts[:, at, 0].mean()
            cells.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}]")
        table.add_row(*cells)
    Console(width=120).print(table)
    missed = int((counts >= given.most).sum())
    if missed:
        print(f"{missed} searches were stopped at {given.most} trials (--most): these means are lower bounds")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs all searches, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--tasks", nargs="+", help="only these tasks, in this order")
    parser.add_argument("--metric")
    parser.add_argument("--sampler", default="surrogate", choices=("surrogate", "quantune"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=24, help="trials of a study that others learn from")
    parser.add_argument("--within", type=float, default=0.1, help="metric points from the best row")
    parser.add_argument("--most", type=int, default=400, help="trials after which a search gives up")
    parser.add_argument("--reversed", action="store_true", help="what was worst is said to have been best")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = {task: path for path in given.tables for task in read_table(path).tasks}
    unknown = [task for task in given.tasks or () if task not in found]
    if unknown:
        parser.error(unknown_name("task", unknown[0], found, "--tasks"))
    problems = [TabularProblem(found[task], task, given.metric) for task in given.tasks or found]
    began, counts = time.monotonic(), []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        counts.append(chain(problems, given.sampler, given, seed))
        print(f"seed {seed}: {counts[-1]}, {time.monotonic() - began:.0f} s", flush=True)
    printed(problems, np.array(counts, dtype=float), given)


if __name__ == "__main__":
    main()

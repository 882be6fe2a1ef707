"""Regret on a table of numeric knobs after some trials: the surrogate beside TPE, GP, CMA-ES and random search.

Run from the root of the repository::

    python tests/benchmarks/numeric_table.py --table pruning.csv --results results.jsonl --seeds 20

The table is that of `pruning_table.py`, or any other: every `knob.*` column with more than 16 numbers is a range, the value is
`metric.score` (`--metric`). Every sampler proposes values in these ranges; a proposal is answered with the row nearest to it
that was not measured. With `--miss value` a sampler is told this row's value as that of its own proposal, with `row` as a trial of the row.
`surrogate_rows` chooses among the rows themselves, as a study of a table does.

With `--metric top1 --most macs 0.5` the value is top-1 where that column is at most the limit: every sampler is told by how much a
trial exceeds it; `surrogate_told` knows the column of every row beforehand, too. CMA-ES has no constraints.

Regret is the best (feasible) value of the table less the best so far, or less the table's lowest before there is one. Prints its mean over the seeds after `--at` trials with 95 % intervals.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from table_search import SAMPLERS, Miss, Table, mean_text, search

from search.samplers.candidates.context import Known, KnownOnly, Params, SamplerContext, key_of
from search.samplers.candidates.pools import draw_candidates
from search.samplers.surrogate.sampler import SurrogateSampler

OURS: dict[str, Callable[[int], BaseSampler]] = {
    "surrogate": lambda seed: SurrogateSampler(seed=seed),
    "surrogate_rows": lambda seed: SurrogateSampler(seed=seed),
    "surrogate_told": lambda seed: SurrogateSampler(seed=seed),
}


class Told(KnownOnly):
    """The constraints of a table's rows, known beforehand."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns their excesses; no values."""
        at = [self._table.position[key_of(candidate)] for candidate in candidates]
        excesses = {name: excess[at] for name, excess in self._table.excesses.items()}
        return Known(np.full((len(at), 1), np.nan), excesses, [str(i) for i in at])


def read(path: Path, metric: str, most: Sequence[str] = ()) -> Table:
    """Reads the rows; numbers stay numbers.

    Args:
        path: The table.
        metric: The column `metric.NAME` to maximise.
        most: A column `metric.NAME` and its limit; empty for none.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    knobs = [name for name in rows[0] if name.startswith("knob.")]
    candidates: list[dict[str, Any]] = [
        {name.removeprefix("knob."): _number(row[name]) for name in knobs} for row in rows
    ]
    values = np.array([[float(row[f"metric.{metric}"])] for row in rows])
    excesses = {}
    if most:
        name, limit = most
        excesses[name] = np.array([float(row[f"metric.{name}"]) for row in rows]) - float(limit)
    return Table(candidates, values, ["maximize"], excesses=excesses)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def ranges_of(table: Table) -> SamplerContext:
    """Returns the context of a study whose knobs are these ranges, without the rows."""

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        return draw_candidates(table.distributions, 1, rng)[0]

    return SamplerContext(directions=table.directions, distributions=table.distributions, draw=draw)


def one(table: Table, name: str, seed: int, n_trials: int, miss: Miss) -> dict[str, Any]:
    """Searches once; returns the regret after each trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.process_time()
    sampler = {**SAMPLERS, **OURS}[name](seed)
    context = ranges_of(table) if name == "surrogate" else None
    context = table.context(Told(table)) if name == "surrogate_told" else context
    broken = np.any([excess > 0 for excess in table.excesses.values()], axis=0) | np.zeros(
        len(table.values), bool
    )
    values = np.where(broken, table.values.min(), table.values[:, 0])
    found = [values[at] for at in islice(search(table, sampler, seed, context, miss), n_trials)]
    regrets = (values.max() - np.maximum.accumulate(found)).round(4).tolist()
    return {
        "sampler": name,
        "miss": miss,
        "seed": seed,
        "regrets": regrets,
        "cpu_s": time.process_time() - began,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs what is not in the results yet, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--metric", default="score")
    parser.add_argument("--most", nargs=2, default=[], metavar=("COLUMN", "LIMIT"))
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument(
        "--samplers", nargs="+", default=["random", "tpe", "gp", "cmaes", "surrogate", "surrogate_rows"]
    )
    parser.add_argument("--miss", nargs="+", choices=get_args(Miss), default=["value"])
    parser.add_argument("--at", type=int, nargs="+", default=[10, 25, 60, 200])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args(arguments)
    table = read(given.table, given.metric, given.most)
    done = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results.exists()
        else []
    )
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    wanted = [(n, s, m) for s in seeds for n in given.samplers for m in given.miss]
    have = {(r["sampler"], r["seed"], r["miss"]) for r in done if len(r["regrets"]) >= max(given.at)}
    with ProcessPoolExecutor(given.jobs) as pool, given.results.open("a") as file:
        jobs = [
            pool.submit(one, table, n, s, max(given.at), m) for n, s, m in wanted if (n, s, m) not in have
        ]
        for job in jobs:
            done.append(job.result())
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    spread = np.quantile(table.values, [0.5, 0.9, 0.99, 1.0])
    print(
        f"{len(table.candidates)} rows, quantiles 0.5, 0.9, 0.99, 1 of {given.metric}: {spread.round(2).tolist()}"
    )
    for name in given.samplers:
        for miss in given.miss:
            runs = [r for r in done if r["sampler"] == name and r["miss"] == miss and r["seed"] in seeds]
            texts = [mean_text([r["regrets"][at - 1] for r in runs]) for at in given.at]
            cpu_s = np.mean([r["cpu_s"] for r in runs])
            print(
                f"{name:16} {miss:6} {len(runs):3} seeds  "
                + "  ".join(f"{t:22}" for t in texts)
                + f"  {cpu_s:.0f} s CPU"
            )


if __name__ == "__main__":
    main()

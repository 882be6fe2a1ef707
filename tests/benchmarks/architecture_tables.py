"""How many evaluations each sampler needs for 95 % of the hypervolume of the front of a public table of architectures.

Run from the root of the repository::

    python tests/benchmarks/architecture_tables.py --tables ../shared/data/tables --results results.jsonl --seeds 20

`macro` is NAS-Bench-Macro (all 6,561 networks of the space), `accel` and `accel_latency` are Accel-NASBench (5,076 networks, a
sample of the space). Each is searched for top-1 against the costs of `PROBLEMS`. The reference point is 10 % of the front's
range beyond its worst end, which no sampler is told.

`surrogate` learns all objectives, as Optuna's samplers do. `surrogate_known` knows MACs and parameters of every architecture,
which are counted without training it (`tabular.known`).

A proposal that is no row of the table is answered with the nearest row that was not measured, in either of two ways (see
`table_search.Miss`); Optuna's samplers are searched with both, and the better one counts. Only different rows count.

Each search is a line of `--results`; searches that are there are not repeated, so that the command can be interrupted. It prints
medians and ratios of medians with 95 % bootstrap intervals over seeds. A search that is not done within `--limit` evaluations
counts as `--limit`.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from table_search import OPTUNA, RESAMPLES, Miss, median_text
from three_objectives import Problem, _quiet, run

OURS = {"surrogate": "surrogate_learning_all", "surrogate_known": "surrogate"}  # names in `three_objectives`
PEERS = ("random", *OPTUNA)
SLOW = ("gp", "tpe", "tpe_5")  # a tenth of a second to seconds per proposal


@dataclass(frozen=True)
class Task:
    """A table and what is searched in it.

    Attributes:
        file: Name of the table's file.
        minimize: Columns to minimise; the first objective is to maximise `metric.top1`.
        known: Those that are known without training.
        complete: Whether the table has every candidate of its space, so that no proposal is missing.
    """

    file: str
    minimize: tuple[str, ...]
    known: tuple[str, ...]
    complete: bool = False


PROBLEMS = {
    "macro": Task(
        "nas_bench_macro.csv", ("metric.macs", "metric.params"), ("metric.macs", "metric.params"), True
    ),
    "accel": Task(
        "accel_nasbench.csv", ("metric.macs_m", "metric.params_m"), ("metric.macs_m", "metric.params_m")
    ),
    "accel_latency": Task(
        "accel_nasbench.csv", ("metric.params_m", "metric.latency_zcu102_ms"), ("metric.params_m",)
    ),
}


@dataclass(frozen=True)
class Key:
    """A search that is to be run.

    Attributes:
        problem: Key of `PROBLEMS`.
        sampler: Key of `OURS`, or one of `PEERS`.
        miss: What a proposal that is not in the table becomes.
        seed: Of the sampler.
    """

    problem: str
    sampler: str
    miss: Miss
    seed: int


def keys(given: argparse.Namespace) -> Iterator[Key]:
    """Yields all searches, seed by seed, so that an interrupted run has about as many of each sampler."""
    for seed in range(given.seeds):
        for problem in given.problems:
            for sampler in given.samplers:
                if sampler in SLOW and seed >= given.slow_seeds:
                    continue
                both = sampler in PEERS and sampler != "random" and not PROBLEMS[problem].complete
                for miss in given.misses if both else ("row",):
                    yield Key(problem, sampler, miss, seed)


@cache
def problem_of(name: str, tables: Path, share: float, limit: int) -> tuple[Problem, argparse.Namespace]:
    """Returns the problem and its settings, as `three_objectives` takes them; read once per process."""
    task = PROBLEMS[name]
    given = argparse.Namespace(
        table=tables / task.file, maximize="metric.top1", minimize=",".join(task.minimize), known=",".join(task.known),
        task="", rows=0, reference="", uncompressed="", truth=None, share=share, limit=limit, until=np.inf,
    )  # fmt: skip
    return Problem(given), given


def searched(key: Key, tables: Path, share: float, limit: int) -> dict[str, Any]:
    """Runs a search; returns its line of the results."""
    _quiet()
    problem, given = problem_of(key.problem, tables, share, limit)
    name = OURS.get(key.sampler, key.sampler)
    began = time.process_time()
    found = run(problem.front(0), name, problem.low_fidelity(name, key.seed), key.seed, given, key.miss)
    seconds = (time.process_time() - began) / found.trials
    return {
        **vars(key), "share_wanted": share, "limit": limit, "evaluations": found.trials,
        "reached": bool(found.reached), "share": float(found.share), "seconds": round(seconds, 4),
    }  # fmt: skip


def search_all(given: argparse.Namespace) -> None:
    """Runs the searches that are not in the results yet."""
    done = {(r["problem"], r["sampler"], r["miss"], r["seed"]) for r in read(given)}
    left = [key for key in keys(given) if (key.problem, key.sampler, key.miss, key.seed) not in done]
    with (
        ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool,
        given.results.open("a", encoding="utf-8") as file,
    ):
        futures = [pool.submit(searched, key, given.tables, given.share, given.limit) for key in left]
        for future in futures:
            file.write(json.dumps(future.result()) + "\n")
            file.flush()


def read(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the lines of the results with these settings."""
    if not given.results.exists():
        return []
    lines = map(json.loads, given.results.read_text(encoding="utf-8").splitlines())
    return [r for r in lines if (r["share_wanted"], r["limit"]) == (given.share, given.limit)]


# -- the tables ---------------------------------------------------------------------------------------------------


Counts = NDArray[np.float64]


def ratio_text(other: Counts, ours: Counts) -> str:
    """Returns the ratio of two medians with its 95 % bootstrap interval; seeds are drawn independently."""
    rng = np.random.default_rng(0)
    drawn = [np.median(rng.choice(c, (RESAMPLES, len(c))), axis=1) for c in (other, ours)]
    low, high = np.quantile(drawn[0] / drawn[1], [0.025, 0.975])
    return f"{np.median(other) / np.median(ours):.2f} [{low:.2f}, {high:.2f}]"


def show(given: argparse.Namespace, name: str) -> None:
    """Prints the table of a problem."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in read(given):
        if result["problem"] == name and result["sampler"] in given.samplers:
            groups.setdefault((result["sampler"], result["miss"]), []).append(result)
    counts = {group: np.array([r["evaluations"] for r in found], float) for group, found in groups.items()}
    if not counts:
        return
    problem, _ = problem_of(name, given.tables, given.share, given.limit)
    front = problem.front(0)
    print(
        f"\n{name}: {len(front.table.candidates)} rows, {front.true.sum()} on the front; an oracle that knows the table "
        f"needs {front.fewest(given.share)}"
    )
    print(
        f"{'sampler':18}{'misses':8}{'seeds':>6} {'median':22}{'mean':>8}{'missed':>8}{'s/eval':>9}  "
        + "".join(f"{'times ' + o:28}" for o in OURS if (o, "row") in counts)
    )
    for (sampler, miss), found in sorted(groups.items(), key=lambda item: float(np.median(counts[item[0]]))):
        own = counts[sampler, miss]
        ratios = "".join(f"{ratio_text(own, counts[o, 'row']):28}" for o in OURS if (o, "row") in counts)
        how = "none" if PROBLEMS[name].complete or sampler in OURS else miss
        print(
            f"{sampler:18}{how:8}{len(found):6} {median_text(own.tolist()):22}{own.mean():8.1f}"
            f"{sum(not r['reached'] for r in found):8}{np.mean([r['seconds'] for r in found]):9.3f}  {ratios}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs all searches, prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--results", type=Path, required=True, help="file of the searches; is added to")
    parser.add_argument("--problems", type=_listed, default=list(PROBLEMS))
    parser.add_argument(
        "--samplers", type=_listed, default=[name for name in (*OURS, *PEERS) if name != "tpe_5"]
    )
    parser.add_argument(
        "--misses",
        type=_listed,
        default=["row", "value"],
        help="ways in which missing proposals are answered",
    )
    parser.add_argument("--share", type=float, default=0.95, help="of the front's hypervolume")
    parser.add_argument("--limit", type=int, default=1500, help="evaluations of one search")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow-seeds", type=int, default=5, help=f"seeds of {', '.join(SLOW)}")
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time")
    given = parser.parse_args(arguments)
    search_all(given)
    for name in given.problems:
        show(given, name)


def _listed(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()

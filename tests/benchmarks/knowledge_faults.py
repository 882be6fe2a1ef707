"""What wrong knowledge costs: trials to the best row where the other tasks' measurements were tampered with.

Run from the root of the repository::

    python tests/benchmarks/knowledge_faults.py --data ../shared/data --tables quantune --results results.jsonl --seeds 20

Each task of a table is searched with the rows of its other tasks as knowledge. `--faults`:

- `none`: no knowledge; `true`: the rows as they are.
- `shuffled`: the values of each other task are permuted; `reversed`: mirrored between its best and its worst.
- `collapsed`: the best row of each other task has the value of its worst row, or chance (`0.1`) where scores are percentages.
- `first`: the candidate that the other tasks rank first (mean of its ranks) collapses in the searched task itself.

`--columns`: `with` the value of every task's uncompressed model, or `without`. A task whose table has none has no difference.

Tables, and how they are cut into tasks: `quantune` (networks), `macro` (NAS-Bench-Macro's top-1 by the choice for its first
block), `accel` (Accel-NASBench's throughput by accelerator), `nb201` (NAS-Bench-201's latency by device), `qualcomm`
(latency by network: which device, runtime and precision is fastest), `made` (made-up tasks, others for every seed). Large tables are cut to `--rows` random rows, the same for all tasks.

Prints, by table, fault and column, the trials to the best row and to near it (0.5 points, 5 % of a cost) as the mean over tasks and
seeds (geometric mean over tasks of the means), and the ratio to no knowledge with a 95 % interval over the seeds.
"""

import argparse
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, RandomSampler
from table_search import Table, search

from search.cli.sweep import interval
from search.knowledge.table import read_table
from search.planning.tabular.problem import TabularProblem
from search.samplers.candidates.context import KnowledgeRow, Params, key_of
from search.samplers.surrogate.sampler import SurrogateSampler

Array = NDArray[np.float64]
FAULTS = ("none", "true", "shuffled", "reversed", "collapsed", "first")
CHANCE = 0.1
MADE = "made"
NEAR_POINTS, NEAR_SHARE = 0.5, 0.05
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "surrogate": lambda seed: SurrogateSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}


@dataclass(frozen=True)
class TaskRows:
    """Measurements of one task.

    Attributes:
        candidates: The `n` candidates.
        values: `(n,)`.
        baseline: Value of the uncompressed model; None where there is none.
    """

    candidates: Sequence[Params]
    values: Array
    baseline: float | None = None


@dataclass(frozen=True)
class Family:
    """Tasks over one space.

    Attributes:
        tasks: By name.
        direction: Which end of the value is better.
        is_share: Whether values are percentages, whose chance is 0.1.
    """

    tasks: Mapping[str, TaskRows]
    direction: str
    is_share: bool

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0

    def collapsed(self, values: Array) -> float:
        """Returns the value of a collapsed candidate of a task."""
        return CHANCE if self.is_share else float((self.sign * values).min() * self.sign)

    def near(self, best: float) -> float:
        """Returns the value from which on a candidate is near the best."""
        return best - NEAR_POINTS if self.is_share else best * (1 - self.sign * NEAR_SHARE)


# -- tables ----------------------------------------------------------------------------------------------------


def quantune(data: Path, most: int) -> Family:
    """Six networks, 48 or 96 configurations each, top-1."""
    path = data / "tables/quantune_six_cnns.csv"
    problems = {task: TabularProblem(path, task) for task in read_table(path).tasks}
    return Family(
        {
            task: TaskRows(
                p.candidates,
                np.array([p.values(row)["metric.top1"] for row in p.rows]),
                p.baseline("metric.top1"),
            )
            for task, p in problems.items()
        },
        "maximize",
        True,
    )


def macro(data: Path, most: int) -> Family:
    """NAS-Bench-Macro: seven blocks, a task for each choice of the first."""
    rows = _rows(data / "tables/nas_bench_macro.csv")
    knobs = [name for name in rows[0] if name.startswith("knob.") and name != "knob.block1"]
    tasks = {}
    for first in sorted({row["knob.block1"] for row in rows}):
        some = [row for row in rows if row["knob.block1"] == first]
        tasks[first] = TaskRows(
            [{k: r[k] for k in knobs} for r in some], np.array([float(r["metric.top1"]) for r in some])
        )
    return _thinned(Family(tasks, "maximize", True), most)


def accel(data: Path, most: int) -> Family:
    """Accel-NASBench: throughput on each accelerator."""
    rows = _rows(data / "tables/accel_nasbench.csv")
    knobs = [name for name in rows[0] if name.startswith("knob.")]
    devices = [name for name in rows[0] if "throughput" in name]
    candidates = [{k: r[k] for k in knobs} for r in rows]
    tasks = {d: TaskRows(candidates, np.array([float(r[d]) for r in rows])) for d in devices}
    return _thinned(Family(tasks, "maximize", False), most)


def nb201(data: Path, most: int) -> Family:
    """NAS-Bench-201: latency on each device that was measured."""
    rows = _rows(data / "tables/nb201_latency.csv.gz")
    edges = [[edge.split("~")[0] for edge in r["arch_str"].replace("+", "").split("|") if edge] for r in rows]
    candidates = [{f"edge{at}": operator for at, operator in enumerate(found)} for found in edges]
    devices = ("raspi4", "gold_6226", "1080ti_1", "titan_rtx_256", "samsung_a50")
    tasks = {d: TaskRows(candidates, np.array([float(r[d]) for r in rows])) for d in devices}
    return _thinned(Family(tasks, "minimize", False), most)


def qualcomm(data: Path, most: int) -> Family:
    """Networks with at least 20 latencies: device, runtime and precision."""
    found: dict[str, dict[Any, tuple[Params, float]]] = {}
    for row in _rows(data / "tables/qualcomm_ai_hub.csv.gz"):
        if not row["latency_ms"]:
            continue
        params = {k: row[k] for k in ("precision", "device", "runtime")}
        found.setdefault(f"{row['model']}/{row['component']}", {})[key_of(params)] = (
            params,
            float(row["latency_ms"]),
        )
    tasks = {
        name: TaskRows([p for p, _ in rows.values()], np.array([v for _, v in rows.values()]))
        for name, rows in found.items()
        if len(rows) >= 20
    }
    chosen = np.random.default_rng(0).permutation(sorted(tasks))[:12]
    return Family({name: tasks[name] for name in sorted(chosen)}, "minimize", False)


def made(seed: int) -> Family:
    """Six made-up tasks of 96 candidates: drops are products of effects of the values, and pairs of values collapse.

    Effects and pairs are in part those of all tasks, in part a task's own.
    """
    rng = np.random.default_rng(1000 + seed)
    sizes = {"scheme": 2, "bits": 3, "calibration": 4, "granularity": 2, "mixed": 2}
    knobs = list(sizes)
    candidates = [dict(zip(sizes, values, strict=True)) for values in product(*map(range, sizes.values()))]

    def pair() -> Params:
        return {str(k): int(rng.integers(sizes[k])) for k in rng.choice(knobs, 2, replace=False)}

    def effects(spread: float) -> dict[str, Array]:
        return {knob: rng.normal(0, spread, n) for knob, n in sizes.items()}

    shared, pairs = effects(0.8), [pair(), pair()]
    (first, second), both = rng.choice(knobs, 2, replace=False), rng.normal(0, 0.5, (4, 4))
    tasks = {}
    for at in range(6):
        level, own = rng.uniform(50, 85), effects(0.4)
        fatal = [p for p in pairs if rng.random() < 0.8] + [pair() for _ in range(rng.integers(2))]
        logs = [
            0.5 + sum(shared[k][v] + own[k][v] for k, v in c.items()) + both[c[first], c[second]]
            for c in candidates
        ]
        values = level - np.exp(np.array(logs) + rng.normal(0, 0.15, len(logs)))
        collapsed = np.array([any(p.items() <= c.items() for p in fatal) for c in candidates])
        values = np.where(collapsed, level * rng.uniform(0, 0.4, len(values)), values)
        tasks[f"task{at}"] = TaskRows(candidates, np.maximum(values, CHANCE), level)
    return Family(tasks, "maximize", True)


TABLES: dict[str, Callable[[Path, int], Family]] = {
    "quantune": quantune,
    "macro": macro,
    "accel": accel,
    "nb201": nb201,
    "qualcomm": qualcomm,
}


def _rows(path: Path) -> list[dict[str, str]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(io.StringIO(raw.decode())))


def _thinned(family: Family, most: int) -> Family:
    """Returns the family with the same random rows of every task, at most `most`."""
    n = min(len(rows.values) for rows in family.tasks.values())
    keep = np.sort(np.random.default_rng(0).permutation(n)[:most])
    tasks = {
        name: TaskRows([rows.candidates[i] for i in keep], rows.values[keep], rows.baseline)
        for name, rows in family.tasks.items()
    }
    return replace(family, tasks=tasks)


# -- faults ----------------------------------------------------------------------------------------------------


def knowledge(
    family: Family, task: str, fault: str, seed: int, column: bool, share: float = 1.0
) -> list[KnowledgeRow]:
    """Returns the other tasks' rows with a fault in each task, a random share of each task's."""
    rows = []
    for name, other in family.tasks.items():
        if name == task or fault == "none":
            continue
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values = _tampered(family, other.values, fault, rng)
        kept = rng.random(len(values)) < share
        baseline = other.baseline if column else None
        rows += [
            KnowledgeRow(name, params, float(value), {}, baseline)
            for params, value, keep in zip(other.candidates, values, kept, strict=True)
            if keep
        ]
    return rows


def _tampered(family: Family, values: Array, fault: str, rng: np.random.Generator) -> Array:
    if fault == "shuffled":
        return np.asarray(rng.permutation(values))
    if fault == "reversed":
        return np.asarray(values.max() + values.min() - values)
    if fault == "collapsed":
        values = values.copy()
        values[int(np.argmax(family.sign * values))] = family.collapsed(values)
    return values


def first_by_ranks(family: Family, task: str) -> int:
    """Returns the position of the task's candidate with the best mean rank in the other tasks."""
    ranks: dict[Any, list[float]] = {}
    for name, other in family.tasks.items():
        if name != task:
            order = np.argsort(np.argsort(-family.sign * other.values)) / len(other.values)
            for params, rank in zip(other.candidates, order, strict=True):
                ranks.setdefault(key_of(params), []).append(float(rank))
    means = [np.mean(ranks.get(key_of(params), [1.0])) for params in family.tasks[task].candidates]
    return int(np.argmin(means))


def table_of(family: Family, task: str, fault: str) -> Table:
    """Returns the searched task's rows."""
    rows = family.tasks[task]
    values = rows.values.copy()
    if fault == "first":
        values[first_by_ranks(family, task)] = family.collapsed(values)
    return Table(list(rows.candidates), values[:, None], [family.direction])


# -- searches --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One search."""

    data: Path
    table: str
    most: int
    task: str
    sampler: str
    fault: str
    column: bool
    seed: int
    limit: int
    share: float


@cache
def family_of(table: str, data: Path, most: int, seed: int) -> Family:
    """Returns the tasks of a table; those of `made` follow from the seed."""
    return made(seed) if table == MADE else TABLES[table](data, most)


def one(job: Job) -> dict[str, Any]:
    """Searches once; returns the trials to the best row and to near it, `limit + 1` where it was not found."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    family = family_of(job.table, job.data, job.most, job.seed if job.table == MADE else 0)
    table = table_of(family, job.task, job.fault)
    baseline = family.tasks[job.task].baseline if job.column else None
    fault = "true" if job.fault == "first" else job.fault
    context = table.context(
        None, knowledge(family, job.task, fault, job.seed, job.column, job.share), (baseline,)
    )
    heights = family.sign * table.values[:, 0]
    near = family.sign * family.near(float(family.sign * heights.max()))
    found: dict[str, int] = {}
    measured = search(table, SAMPLERS[job.sampler](job.seed), job.seed, context)
    for trial, at in enumerate(islice(measured, job.limit), 1):
        if heights[at] >= near:
            found.setdefault("near", trial)
        if heights[at] == heights.max():
            found["best"] = trial
            break
    result = {
        k: getattr(job, k)
        for k in ("table", "most", "task", "sampler", "fault", "column", "seed", "limit", "share")
    }
    return result | {"best": job.limit + 1, "near": job.limit + 1} | found


def report(done: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in done:
        groups.setdefault((row["table"], row["sampler"], row["column"], row["fault"]), []).append(row)
    for (table, sampler, column, fault), rows in groups.items():
        base = groups.get((table, sampler, column, "none"), [])
        texts = []
        for goal in ("best", "near"):
            means = _means(rows, "task", goal)
            text = (
                f"{np.mean(list(means.values())):5.1f} ({np.exp(np.mean(np.log(list(means.values())))):.1f})"
            )
            ours, theirs = _means(rows, "seed", goal), _means(base, "seed", goal)
            ratios = [ours[seed] / np.mean(list(theirs.values())) for seed in ours] if theirs else []
            if len(ratios) > 1:
                low, high = interval(ratios) if len(set(ratios)) > 1 else (ratios[0], ratios[0])
                text += f" {np.mean(ratios):.2f} [{low:.2f}, {high:.2f}]"
            texts.append(f"{goal} {text:34}")
        by_task = " ".join(f"{v:.1f}" for v in _means(rows, "task", "best").values())
        stopped = sum(row["best"] > row["limit"] for row in rows)
        print(
            f"{table:9} {sampler:9} {'with' if column else 'without':7} {fault:9} {' '.join(texts)} stopped {stopped}/{len(rows)}: {by_task}"
        )


def _means(rows: Sequence[Mapping[str, Any]], by: str, goal: str) -> dict[Any, float]:
    found: dict[Any, list[int]] = {}
    for row in rows:
        found.setdefault(row[by], []).append(row[goal])
    return {key: float(np.mean(values)) for key, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs the searches that the results lack, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", choices=[*TABLES, MADE], default=["quantune"])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=["surrogate"])
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--columns", nargs="+", choices=("with", "without"), default=["with", "without"])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--share", type=float, default=1.0, help="of each other task's rows that are known")
    parser.add_argument("--limit", type=int, default=100, help="trials of a search, at most")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args(arguments)
    done = (
        [json.loads(line) for line in given.results.read_text().splitlines()]
        if given.results.exists()
        else []
    )
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    names = ("table", "most", "task", "sampler", "fault", "column", "seed", "limit", "share")
    have = {tuple(row[k] for k in names) for row in done}
    jobs = []
    for table in given.tables:
        family = family_of(table, given.data, given.rows, 0)
        known = any(rows.baseline is not None for rows in family.tasks.values())
        jobs += [
            Job(
                given.data,
                table,
                given.rows,
                task,
                sampler,
                fault,
                column == "with",
                seed,
                given.limit,
                given.share,
            )
            for seed in seeds
            for column in given.columns
            if known or column == "without"
            for fault in given.faults
            for sampler in given.samplers
            for task in family.tasks
        ]
    missing = [job for job in jobs if tuple(getattr(job, k) for k in names) not in have]
    with ProcessPoolExecutor(given.jobs) as pool, given.results.open("a") as file:
        for row in pool.map(one, missing):
            done.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    wanted = {tuple(getattr(job, k) for k in names) for job in jobs}
    report([row for row in done if tuple(row[k] for k in names) in wanted])


if __name__ == "__main__":
    main()

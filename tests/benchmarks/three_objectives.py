"""How many trials each sampler needs for 98 % of the hypervolume of a table's true front, with several objectives.

Run from the root of the repository::

    python tests/benchmarks/three_objectives.py --table ../shared/data/tables/accel_nasbench.csv --rows 2000 \
        --maximize metric.top1 --minimize metric.params_m,metric.latency_zcu102_ms \
        --known metric.params_m,metric.latency_zcu102_ms --seeds 20

Any CSV does that has `knob.*` columns (empty where a knob is inactive) and the named columns. A row that was measured before is
answered from the study and does not count as a trial. A proposal that is no row of the table is dropped, and the nearest row
that was not measured is proposed in its place, to every sampler alike. Columns that are `--known` are told
beforehand to samplers that can be told (modelled costs); without the option all columns are learned.
The reference point is `--reference COLUMN=VALUE,...` (what is worth nothing), elsewhere 10 % of the front's range beyond its worst end.
A search that does not get there within `--limit` trials counts as if it had at the limit.
"""

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from search.samplers.boxes import non_dominated
from search.samplers.context import Known, Params, SamplerContext, ShortLook, key_of
from search.samplers.improvement import expected_improvement, oriented, reference_point
from search.sweep import interval
from search.volume import hypervolume

Array = NDArray[np.float64]
SHARE = 0.98
MISSES_IN_A_ROW = 32  # duplicates, before a random row is measured


def surrogate(seed: int) -> BaseSampler:
    from search.samplers.surrogate.sampler import SurrogateSampler

    return SurrogateSampler(seed=seed)


def gaussian_process(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=10)


OPTUNA: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "tpe_5": lambda seed: TPESampler(n_startup_trials=5, seed=seed),
    "nsga2": lambda seed: NSGAIISampler(population_size=12, seed=seed),
    "nsga2_50": lambda seed: NSGAIISampler(seed=seed),
    "gp": gaussian_process,
}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    **OPTUNA,
    "surrogate": surrogate,
    "surrogate_learning_all": surrogate,  # told nothing beforehand
}


@dataclass(frozen=True)
class Table:
    """Candidates with their objectives.

    Attributes:
        candidates: n of them, without inactive knobs.
        values: `(n, d)`, raw.
        directions: d of "maximize", "minimize".
        known: Which objectives are told beforehand, `(d,)`.
        given: The reference point as far as it is given, raw, `(d,)`, NaN elsewhere.
    """

    candidates: list[dict[str, Any]]
    values: Array
    directions: list[str]
    known: NDArray[np.bool_]
    given: Array
    row_of: dict[frozenset[tuple[str, Any]], int] = field(init=False)

    def __post_init__(self) -> None:
        keys = [key_of(candidate) for candidate in self.candidates]
        object.__setattr__(self, "row_of", {key: row for row, key in enumerate(keys)})

    @cached_property
    def gains(self) -> Array:
        """`(n, d)`, to be maximised."""
        return oriented(self.values, self.directions)

    @cached_property
    def reference(self) -> Array:
        """`(d,)`, to be maximised."""
        return reference_point(self.gains, floors=oriented(self.given[None], self.directions)[0])

    @cached_property
    def volume(self) -> float:
        """Hypervolume of the true front."""
        return hypervolume(-self.gains[self.front], -self.reference)

    @cached_property
    def front(self) -> NDArray[np.bool_]:
        """Which rows are the true front, `(n,)`."""
        return non_dominated(np.where((self.gains > self.reference).all(axis=1)[:, None], self.gains, np.nan))

    @cached_property
    def fewest(self) -> int:
        """Rows that are needed by someone who knows the table and always takes the row that adds most."""
        rng, front, volume, count = np.random.default_rng(0), self.gains[:0], 0.0, 0
        points = self.gains[self.front]
        while volume < SHARE * self.volume:
            added = expected_improvement(points, np.zeros_like(points), front, self.reference, rng)
            front = np.concatenate([front, points[[added.argmax()]]])
            volume, count = volume + added.max(), count + 1
        return count

    @cached_property
    def knobs(self) -> dict[str, tuple[Any, ...]]:
        """Values of each knob, in the order of the columns."""
        found: dict[str, dict[tuple[type, Any], None]] = {}
        for candidate in self.candidates:
            for name, value in candidate.items():
                found.setdefault(name, {})[type(value), value] = None
        return {name: tuple(value for _, value in sorted(seen, key=str)) for name, seen in found.items()}

    @cached_property
    def codes(self) -> NDArray[np.int8]:
        """`(n, n_knobs)`, positions of the values; -1 where a knob is inactive."""
        return np.array([self.code(candidate) for candidate in self.candidates])

    def code(self, candidate: Params) -> NDArray[np.int8]:
        return np.array(
            [v.index(candidate[k]) if k in candidate else -1 for k, v in self.knobs.items()], np.int8
        )

    def nearest(self, candidate: Params, left: NDArray[np.intp], rng: np.random.Generator) -> int:
        """Returns the row among `left` that differs in the fewest knobs, ties at random."""
        distance = (self.codes[left] != self.code(candidate)).sum(axis=1)
        return int(rng.choice(left[distance == distance.min()]))


class TableLooks:
    """Tells the known columns of a table, and nothing else."""

    sizes: Sequence[int] = ()
    n_full = 1

    def __init__(self, table: Table) -> None:
        self._table = table

    def known(self, candidates: Sequence[Params]) -> Known:
        rows = [self._table.row_of.get(key_of(candidate), -1) for candidate in candidates]
        values = np.where(self._table.known, self._table.values[rows], np.nan)
        return Known(values, {}, [str(row) if row >= 0 else "" for row in rows])

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, Array]:
        return {}

    def short(self, candidate: Params, n_examples: int) -> ShortLook | None:
        return None


def read_table(given: argparse.Namespace, seed: int) -> Table:
    """Reads the CSV, or the seed's own part of it; rows with an empty objective are left out."""
    with given.table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    maximize, minimize = _listed(given.maximize), _listed(given.minimize)
    columns = [*maximize, *minimize]
    if given.task:
        rows = [row for row in rows if row["task"] == given.task]
    rows = [row for row in rows if all(row[column] for column in columns)]
    if given.rows and len(rows) > given.rows:
        chosen = np.random.default_rng(seed).choice(len(rows), given.rows, replace=False)
        rows = [rows[at] for at in sorted(chosen)]
    knobs = [name for name in rows[0] if name.startswith("knob.") and len({row[name] for row in rows}) > 1]
    by_key: dict[frozenset[tuple[str, Any]], tuple[dict[str, Any], list[float]]] = {}
    for row in rows:  # of equal candidates the last stays
        candidate = {name.removeprefix("knob."): _value(row[name]) for name in knobs if row[name] != ""}
        by_key[key_of(candidate)] = candidate, [float(row[column]) for column in columns]
    reference = dict(part.split("=") for part in _listed(given.reference))
    return Table(
        [candidate for candidate, _ in by_key.values()],
        np.array([values for _, values in by_key.values()]),
        ["maximize"] * len(maximize) + ["minimize"] * len(minimize),
        np.isin(columns, _listed(given.known)),
        np.array([float(reference.get(column, "nan")) for column in columns]),
    )


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _value(text: str) -> Any:
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Search:
    """What came of one search: trials until the share was reached (None: not at all), the share, seconds per trial."""

    trials: int | None
    share: float
    seconds: float


def run(table: Table, sampler: BaseSampler, told: bool, seed: int, limit: int) -> Search:
    """Searches until the share of the volume is reached."""
    study = optuna.create_study(directions=table.directions, sampler=sampler)
    distributions = {name: CategoricalDistribution(values) for name, values in table.knobs.items()}
    if hasattr(sampler, "bind"):
        looks = TableLooks(table) if told else None
        sampler.bind(
            SamplerContext(
                table.candidates, directions=table.directions, distributions=distributions, looks=looks
            )
        )
    rng = np.random.default_rng([seed, 1])
    measured = np.zeros(len(table.candidates), dtype=np.bool_)
    front, volume, began, misses = np.empty((0, len(table.directions))), 0.0, time.monotonic(), 0
    while volume < SHARE * table.volume and measured.sum() < min(limit, len(measured)):
        if misses >= MISSES_IN_A_ROW:
            study.enqueue_trial(table.candidates[int(rng.choice(np.flatnonzero(~measured)))])
        trial = study.ask()
        row = table.row_of.get(key_of(ask_all(trial, table, distributions)))
        if row is None:
            near = table.nearest(trial.params, np.flatnonzero(~measured), rng)
            study.tell(trial, state=TrialState.FAIL)
            study.enqueue_trial(table.candidates[near])
            continue
        study.tell(trial, table.values[row].tolist())
        misses = misses + 1 if measured[row] else 0
        if not measured[row]:
            measured[row] = True
            point = table.gains[row : row + 1]
            volume += expected_improvement(point, np.zeros_like(point), front, table.reference, rng)[0]
            front = np.concatenate([front, point])
            front = front[non_dominated(front)]
    n = int(measured.sum())
    reached = volume >= SHARE * table.volume
    return Search(n if reached else None, volume / table.volume, (time.monotonic() - began) / n)


def ask_all(
    trial: optuna.trial.Trial, table: Table, distributions: Mapping[str, CategoricalDistribution]
) -> Params:
    """Asks for every knob that is active, as far as the table's rows with the values so far tell."""
    agree = np.ones(len(table.candidates), dtype=np.bool_)
    for at, (name, kind) in enumerate(distributions.items()):
        codes = table.codes[:, at]
        if (codes[agree] >= 0).any() or (not agree.any() and (codes >= 0).all()):
            value = trial.suggest_categorical(name, kind.choices)
            agree &= codes == table.knobs[name].index(value)
        else:
            agree &= codes < 0
    return trial.params


def line(name: str, found: Sequence[Search], limit: int, best: Sequence[int] | None) -> str:
    counts = [s.trials if s.trials is not None else limit for s in found]
    low, high = interval(counts)
    missed = sum(s.trials is None for s in found)
    ratio = (
        f"{np.mean(best) / np.mean(counts):9.2f} {np.median(best) / np.median(counts):9.2f}" if best else ""
    )
    text = f"{name:24}{np.mean(counts):8.1f} [{low:6.1f}, {high:6.1f}]{np.median(counts):9.1f}{ratio:>20}"
    seconds = np.mean([s.seconds for s in found])
    return f"{text}{missed:8} of {len(found):<4}{np.mean([s.share for s in found]):8.3f}{seconds:10.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs all searches, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--task", default="", help="rows of this task only")
    parser.add_argument(
        "--rows", type=int, default=0, help="a random part of the table for each seed; 0: all"
    )
    parser.add_argument("--maximize", default="")
    parser.add_argument("--minimize", default="")
    parser.add_argument("--known", default="", help="columns that are told beforehand")
    parser.add_argument("--reference", default="", help="COLUMN=VALUE,...: what is worth nothing")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--gp-seeds", type=int, default=3, help="for the slow one")
    parser.add_argument("--limit", type=int, default=500, help="trials of one search")
    parser.add_argument("--samplers", default="random,tpe,nsga2,surrogate,surrogate_learning_all")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    import warnings

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    tables = {seed: read_table(given, seed) for seed in seeds} if given.rows else {}
    whole = tables or {given.first_seed: read_table(given, 0)}
    table = next(iter(whole.values()))
    print(
        f"{len(table.candidates)} rows, {len(table.knobs)} knobs, {table.front.sum()} on the front; reference point "
        f"{oriented(table.reference[None], table.directions)[0].round(4).tolist()}; known {table.known.tolist()}; "
        f"who knows the table needs {np.mean([t.fewest for t in whole.values()]):.1f}"
    )
    found: dict[str, list[Search]] = {}
    for name in given.samplers.split(","):
        told = name != "surrogate_learning_all"
        found[name] = []
        for seed in list(seeds)[: given.gp_seeds if name == "gp" else None]:
            of_seed = tables.get(seed, table)
            found[name].append(run(of_seed, SAMPLERS[name](seed), told, seed, given.limit))
        print(f"{name}: {[s.trials for s in found[name]]}", flush=True)
    limit = min(given.limit, len(table.candidates))
    counts = {name: [s.trials if s.trials is not None else limit for s in found[name]] for name in found}
    best = min((counts[name] for name in OPTUNA if name in counts), key=np.mean, default=None)
    print(
        f"\n{'sampler':24}{'mean':>8} {'95 % interval':16}{'median':>9}{'best / this (median)':>20}"
        f"{'missed':>12}{'share':>12}{'s/trial':>9}"
    )
    for name, searches in found.items():
        print(line(name, searches, limit, best))


if __name__ == "__main__":
    main()

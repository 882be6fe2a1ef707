"""How many trials each sampler needs for a share (98 %) of the hypervolume of a table's true front, with several objectives.

Run from the root of the repository::

    python tests/benchmarks/three_objectives.py --table ../shared/data/tables/accel_nasbench.csv --rows 2000 \
        --maximize metric.top1 --minimize metric.params_m,metric.latency_zcu102_ms \
        --known metric.params_m,metric.latency_zcu102_ms --seeds 20

    python tests/benchmarks/three_objectives.py --truth FOLDER PARTS resnet20 \
        --maximize metric.top1 --minimize cost.stm32h743.latency_ms,metric.file_bytes \
        --samplers random,tpe,nsga2,gp,surrogate,surrogate_no_low_fidelity

Any CSV can be used that has `knob.*` columns (empty where a knob is inactive) and the named columns, see
`table_search.py` for the loop. Columns that are `--known` (modelled costs) are known beforehand to samplers
with `bind`; `surrogate_learning_all` knows none. With `--truth` (what `truth_table.py` prepared and measured)
bytes and costs are known, and `surrogate` also has low-fidelity evaluations, which
`surrogate_no_low_fidelity` has not; their cost is reported in full evaluations, as in `one_network.py`.

The reference point is `--reference COLUMN=VALUE,...`, for other columns 10 % of the front's range beyond its
worst end. `--uncompressed COLUMN=VALUE,...`, of every objective, sets the reference point of a study, the
float model's costs and 90 % of its score, and passes the float model's values to ours.
A search that is not done within `--limit` trials counts as `--limit`; one that is not done when `--minutes`
are over counts with its trials so far. Searches run in `--jobs` processes.
"""

import argparse
import csv
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from table_search import OPTUNA, SAMPLERS, Miss, Table, mean_text, median_text, search

from search.record.hypervolume import hypervolume
from search.record.nondomination import non_dominated
from search.record.results import Objective
from search.samplers.acquisition.improvement import (
    baseline_reference,
    expected_improvement,
    oriented,
    reference_point,
)
from search.samplers.candidates.context import Known, LowFidelityEvaluations, Params, PartialResult, key_of

Array = NDArray[np.float64]
OURS = ("surrogate", "surrogate_no_low_fidelity", "surrogate_learning_all")


@dataclass(frozen=True)
class Front:
    """The true front of a table.

    Attributes:
        table: The candidates.
        given: Coordinates of the reference point that are given, not negated, `(d,)`, NaN elsewhere.
    """

    table: Table
    given: Array

    @cached_property
    def gains(self) -> Array:
        """The candidates' objectives `(n, d)`, all to be maximised."""
        return oriented(self.table.values, self.table.directions)

    @cached_property
    def reference(self) -> Array:
        """The reference point `(d,)`, to be maximised."""
        return reference_point(
            self.gains, known_reference=oriented(self.given[None], self.table.directions)[0]
        )

    @cached_property
    def volume(self) -> float:
        """Hypervolume of the true front."""
        return hypervolume(-self.gains[self.true], -self.reference)

    @cached_property
    def true(self) -> NDArray[np.bool_]:
        """Mask of the candidates on the true front, `(n,)`."""
        return non_dominated(np.where((self.gains > self.reference).all(axis=1)[:, None], self.gains, np.nan))

    def fewest(self, share: float) -> int:
        """Trials for a share of the volume by an oracle that always takes the candidate that adds most."""
        rng, front, volume, count = np.random.default_rng(0), self.gains[:0], 0.0, 0
        points = self.gains[self.true]
        while volume < share * self.volume:
            added = expected_improvement(points, np.zeros_like(points), front, self.reference, rng)
            front = np.concatenate([front, points[[added.argmax()]]])
            volume, count = volume + added.max(), count + 1
        return count


class TableLowFidelity:
    """Knows some columns of a table; has neither statistics nor low-fidelity evaluations."""

    sizes: Sequence[int] = ()
    n_full = 1

    def __init__(self, table: Table, known: NDArray[np.bool_]) -> None:
        self._table, self._known = table, known

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns the columns that are known beforehand."""
        at = [self._table.position.get(key_of(candidate), -1) for candidate in candidates]
        values = np.where(self._known, self._table.values[at], np.nan)
        return Known(values, {}, [str(i) if i >= 0 else "" for i in at])

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, Array]:
        """Returns no statistics."""
        return {}

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Returns None: there are no low-fidelity evaluations."""
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
    by_key: dict[frozenset[tuple[str, Any]], tuple[Params, list[float]]] = {}
    for row in rows:  # of equal candidates the last stays
        candidate = {name.removeprefix("knob."): _value(row[name]) for name in knobs if row[name] != ""}
        by_key[key_of(candidate)] = candidate, [float(row[column]) for column in columns]
    return Table(
        [candidate for candidate, _ in by_key.values()],
        np.array([values for _, values in by_key.values()]),
        ["maximize"] * len(maximize) + ["minimize"] * len(minimize),
    )


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _assigned(text: str) -> dict[str, float]:
    """Returns `COLUMN=VALUE,...` by column."""
    return {column: float(value) for column, value in (part.split("=") for part in _listed(text))}


def _columns(given: argparse.Namespace) -> list[str]:
    return [*_listed(given.maximize), *_listed(given.minimize)]


def _baselines(given: argparse.Namespace) -> list[float]:
    """Returns the float model's value of each objective; empty if they were not given."""
    values = _assigned(given.uncompressed)
    return [values[column] for column in _columns(given)] if values else []


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
    """Result of one search.

    Attributes:
        trials: Trials until the share was reached, or all.
        reached: Whether the share was reached.
        share: Final share of the true front's volume.
        low_fidelity: Cost of the low-fidelity evaluations, in full evaluations.
        seconds: Seconds per trial.
    """

    trials: int
    reached: bool
    share: float
    low_fidelity: float
    seconds: float


def run(
    front: Front,
    name: str,
    low_fidelity: LowFidelityEvaluations | None,
    seed: int,
    given: argparse.Namespace,
    miss: Miss = "row",
) -> Search:
    """Searches until the share of the volume is reached."""
    table = front.table
    sampler = SAMPLERS["surrogate" if name in OURS else name](seed)
    rng, began = np.random.default_rng(seed), time.monotonic()
    found, volume, n = front.gains[:0], 0.0, 0
    baselines = _baselines(given) if name in OURS else ()
    context = table.context(low_fidelity, baselines=baselines)
    for n, at in enumerate(search(table, sampler, seed, context, miss), 1):
        point = front.gains[[at]]
        volume += expected_improvement(point, np.zeros_like(point), found, front.reference, rng)[0]
        found = np.concatenate([found, point])
        found = found[non_dominated(found)]
        if volume >= given.share * front.volume or n >= given.limit or time.time() > given.until:
            break
    cost = low_fidelity.cost(given.overhead) if hasattr(low_fidelity, "cost") else 0.0
    share = volume / front.volume
    return Search(n, share >= given.share, share, cost, (time.monotonic() - began) / n)


class Problem:
    """The table, or the measurements of a network, and the known values that samplers get."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._columns = _columns(given)
        self._objectives = [Objective(c, "maximize") for c in _listed(given.maximize)] + [
            Objective(c, "minimize") for c in _listed(given.minimize)
        ]
        self._known = np.isin(self._columns, _listed(given.known))
        reference = _assigned(given.reference)
        self._reference = np.array([reference.get(column, np.nan) for column in self._columns])
        if baselines := _baselines(given):
            directions = [o.direction for o in self._objectives]
            self._reference = oriented(baseline_reference(baselines, directions)[None], directions)[0]
        self._fronts: dict[int, Front] = {}
        self._truth: Any = None
        if given.truth:
            from replayed_low_fidelity import read_truth

            self._truth = read_truth(Path(given.truth[0]), Path(given.truth[1]), given.truth[2])

    def front(self, seed: int) -> Front:
        """Returns the seed's own part of the table, or the table."""
        seed = seed if self._given.rows else 0
        if seed not in self._fronts:
            self._fronts[seed] = Front(self._table(seed), self._reference)
        return self._fronts[seed]

    def _table(self, seed: int) -> Table:
        if self._truth is None:
            return read_table(self._given, seed)
        from replayed_low_fidelity import table_of

        return table_of(self._truth, self._objectives)

    def low_fidelity(self, name: str, seed: int) -> LowFidelityEvaluations | None:
        """Returns the sampler's low-fidelity evaluations; None if it has none."""
        if name not in OURS or name == "surrogate_learning_all":
            return None
        if self._truth is None:
            return TableLowFidelity(self.front(seed).table, self._known)
        from replayed_low_fidelity import KnownOnly, ReplayedLowFidelity

        kind = ReplayedLowFidelity if name == "surrogate" else KnownOnly
        return kind(self._truth, self._objectives, seed=seed)


def searched(given: argparse.Namespace, name: str, seed: int) -> Search | None:
    """Searches once, in a process of its own, which reads the table anew; None where there is no time left to begin."""
    if time.time() > given.until:
        return None
    _quiet()
    problem = Problem(given)
    return run(problem.front(seed), name, problem.low_fidelity(name, seed), seed, given)


def searched_all(given: argparse.Namespace, seeds: Sequence[int]) -> dict[str, list[Search]]:
    """Searches with every sampler; prints the trials of each search, `+` where the share was not reached."""
    found: dict[str, list[Search]] = {}
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        running = {
            name: [
                pool.submit(searched, given, name, seed)
                for seed in seeds[: given.gp_seeds if name == "gp" else None]
            ]
            for name in given.samplers.split(",")
        }
        for name, futures in running.items():
            done = [future.result() for future in futures]
            counts = [f"{s.trials}{'' if s.reached else '+'}" if s else "none" for s in done]
            print(f"{name}: {', '.join(counts)}", flush=True)
            found[name] = [s for s in done if s is not None]
    return {name: searches for name, searches in found.items() if searches}


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def line(name: str, found: Sequence[Search], best: Sequence[int] | None) -> str:
    """Returns the sampler's line of the table."""
    counts = [s.trials for s in found]
    ratio = ""
    if best:
        ratio = f"{np.mean(best) / np.mean(counts):.2f} ({np.median(best) / np.median(counts):.2f})"
    low_fidelity, missed = np.median([s.low_fidelity for s in found]), sum(not s.reached for s in found)
    return (
        f"{name:26}{len(found):6} {mean_text(counts):24}{median_text(counts):22}{ratio:18}{low_fidelity:13.2f}{missed:8}"
        f"{np.mean([s.share for s in found]):8.3f}{np.mean([s.seconds for s in found]):9.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, runs all searches, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", type=Path)
    source.add_argument("--truth", nargs=3, metavar=("FOLDER", "PARTS", "NETWORK"))
    parser.add_argument("--task", default="", help="rows of this task only")
    parser.add_argument(
        "--rows", type=int, default=0, help="a random part of the table for each seed; 0: all"
    )
    parser.add_argument("--maximize", default="")
    parser.add_argument("--minimize", default="")
    parser.add_argument("--known", default="", help="columns of a table that are known beforehand")
    parser.add_argument("--reference", default="", help="COLUMN=VALUE,...: the reference point")
    parser.add_argument("--uncompressed", default="", help="COLUMN=VALUE,...: the float model's values")
    parser.add_argument("--share", type=float, default=0.98, help="of the true front's hypervolume")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--gp-seeds", type=int, default=3, help="seeds of gp, which is slow")
    parser.add_argument("--limit", type=int, default=500, help="trials of one search")
    parser.add_argument(
        "--overhead",
        type=float,
        default=0.01,
        help="of evaluating a candidate at low fidelity, in full evaluations",
    )
    parser.add_argument("--samplers", default="random,tpe,nsga2,surrogate,surrogate_learning_all")
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time")
    parser.add_argument("--minutes", type=float, default=np.inf, help="in all")
    given = parser.parse_args(arguments)
    given.until = time.time() + 60 * given.minutes
    _quiet()
    problem = Problem(given)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    fronts = [problem.front(seed) for seed in seeds]
    front, table = fronts[0], fronts[0].table
    print(
        f"{len(table.candidates)} rows, {len(table.knobs)} knobs, {front.true.sum()} on the front; reference point "
        f"{oriented(front.reference[None], table.directions)[0].round(4).tolist()}; "
        f"an oracle that knows the table needs {np.mean([f.fewest(given.share) for f in fronts]):.1f}"
    )
    found = searched_all(given, seeds)
    trials = {name: [s.trials for s in searches] for name, searches in found.items()}
    best = min((trials[name] for name in OPTUNA if name in trials), key=np.mean, default=None)
    print(
        f"\n{'sampler':26}{'seeds':>6} {'mean':24}{'median':22}{'best / this':18}{'low-fidelity':>13}{'missed':>8}{'share':>8}{'s/trial':>9}"
    )
    for name, searches in found.items():
        print(line(name, searches, best))


if __name__ == "__main__":
    main()

"""Replays looks from a truth table (`truth_table.py`), so that samplers can be compared over many seeds without running anything.

    truth = read_truth(FOLDER, PARTS, "resnet20")
    looks = ReplayedLooks(truth, [Objective("metric.top1", "maximize")], [])

`truth.pool` are all candidates of the space as Optuna parameters; `truth.row(params)` finds a candidate's row, and
`truth.columns["metric.top1"][row]` what a trial would measure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from truth_table import read_facts, read_network

from search.results import Constraint, Objective
from search.samplers.context import Known, Params, ShortLook, key_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What was measured of every candidate of a space.

    Attributes:
        keys: Canonical key of each row; candidates with the same key come to the same file.
        columns: Measurements by column, `(n_rows,)`, NaN where there is none.
        looks: For each row, the looks by number of examples: drop, drop_error, features.
        statistics: Figures that need no run, `(n_rows,)`; empty if `truth_table.py statistics` was not run.
        candidates: Row of each candidate of the space, with the candidate.
        n_full: Examples that a full evaluation has.
        float_top1: The float network's top-1, in per cent.
    """

    keys: Sequence[str]
    columns: Mapping[str, Floats]
    looks: Sequence[Mapping[int, Mapping[str, Any]]]
    statistics: Mapping[str, Floats]
    candidates: Sequence[tuple[int, Params]]
    n_full: int
    float_top1: float

    @property
    def pool(self) -> list[Params]:
        """Every candidate of the space."""
        return [params for _, params in self.candidates]

    def row(self, params: Params) -> int:
        """Returns a candidate's row."""
        return self._rows[key_of(params)]

    @cached_property
    def _rows(self) -> dict[Any, int]:
        return {key_of(params): row for row, params in self.candidates}


def read_truth(folder: Path, parts: Path, network: str) -> Truth:
    """Reads what `truth_table.py` prepared and measured; candidates that were not measured are left out."""
    facts = read_facts(parts, network)
    rows = {fact["key"]: i for i, fact in enumerate(facts)}
    names = list(dict.fromkeys(column for fact in facts for column in fact["columns"]))
    columns = {c: np.array([fact["columns"].get(c, np.nan) for fact in facts]) for c in names}
    by_key = {c["key"]: c["params"] for c in read_network(folder, network)["candidates"]}
    with np.load(next(iter(sorted(parts.glob(f"{network}.[0-9]*.npz")))), allow_pickle=False) as held:
        n_full = int(held["n_examples"])
        float_top1 = 100 * float(np.unpackbits(held["float_right"])[:n_full].mean())
    return Truth(
        keys=[fact["key"] for fact in facts],
        columns=columns,
        looks=[{look["n_examples"]: look for look in fact["looks"]} for fact in facts],
        statistics=_statistics(parts / f"{network}.statistics.npz", list(rows)),
        candidates=[(rows[key], params) for key in by_key if key in rows for params in by_key[key]],
        n_full=n_full,
        float_top1=float_top1,
    )


def _statistics(path: Path, keys: Sequence[str]) -> dict[str, Floats]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as held:
        position = {str(key): i for i, key in enumerate(held["keys"])}
        order = [position[key] for key in keys]
        return {name: held[name][order] for name in held.files if name != "keys"}


@dataclass
class ReplayedLooks:
    """Looks that were measured beforehand; implements `search.samplers.context.Looks`.

    Attributes:
        truth: What was measured.
        objectives: Axes of the front.
        constraints: What must hold.
        n_examples: Examples of all short looks together so far; a longer look goes on where a shorter one ended.
    """

    truth: Truth
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint] = ()
    n_examples: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of examples that a look can have."""
        return tuple(sorted(self.truth.looks[0]))

    @property
    def n_full(self) -> int:
        """Examples of a full evaluation."""
        return self.truth.n_full

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns modelled costs and bytes."""
        rows = [self.truth.row(params) for params in candidates]
        values = [self._certain(o.column, rows) for o in self.objectives]
        excesses = {c.name: c.excess(self._certain(c.column, rows)) for c in self.constraints}  # type: ignore[arg-type]
        return Known(
            np.stack(values, axis=1) if rows else np.zeros((0, len(values))),
            excesses,  # type: ignore[arg-type]
            [self.truth.keys[row] for row in rows],
        )

    def _certain(self, column: str, rows: Sequence[int]) -> Floats:
        if column == "metric.file_bytes" or column.startswith("cost."):
            return np.asarray(self.truth.columns[column][rows])
        return np.full(len(rows), np.nan)

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, Floats]:
        """Returns what is reckoned without a run."""
        rows = [self.truth.row(params) for params in candidates]
        return {name: figures[rows] for name, figures in self.truth.statistics.items()}

    def short(self, candidate: Params, n_examples: int) -> ShortLook | None:
        """Returns what a run on the first examples said; the number is rounded up to one of `sizes`."""
        row = self.truth.row(candidate)
        n = next((size for size in self.sizes if size >= n_examples), self.sizes[-1])
        self.n_examples += max(0, n - self._seen.get(row, 0))
        self._seen[row] = max(n, self._seen.get(row, 0))
        look = self.truth.looks[row][n]
        estimates = {
            "metric.top1": (self.truth.float_top1 - look["drop"], look["drop_error"]),
            "metric.top1_drop": (look["drop"], look["drop_error"]),
        }

        def read(column: str) -> tuple[float, float]:
            certain = float(self._certain(column, [row])[0])
            return estimates.get(column, (certain, 0.0 if np.isfinite(certain) else np.nan))

        found = np.array([read(o.column) for o in self.objectives])
        excesses = {c.name: (c.excess(read(c.column)[0]), read(c.column)[1]) for c in self.constraints}
        known = {name: both for name, both in excesses.items() if np.isfinite(both[0])}
        return ShortLook(n, found[:, 0], found[:, 1], known, dict(look["features"]))

"""Replays low-fidelity evaluations from a truth table, to compare samplers over many seeds without runs.

    truth = read_truth(FOLDER, PARTS, "resnet20")
    low_fidelity = ReplayedLowFidelity(truth, [Objective("metric.top1", "maximize")], seed=3)

`truth.pool` are all measured candidates, as Optuna parameters; `truth.row(params)` returns a candidate's row,
and `truth.columns["metric.top1"][row]` is what a trial would measure. Every seed has another order of the
examples, so that the subsets of low-fidelity evaluations differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from table_search import Table
from truth_table import Codes, from_codes, read_facts, read_network

from evaluators.task.layer_sqnr import sqnr_db
from evaluators.task.paired_estimate import paired_drop
from search.record.results import Constraint, Objective
from search.samplers.candidates.context import Known, Params, PartialResult, key_of
from search.trials.low_fidelity import subset_sizes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """Predictions of every candidate for every example.

    Attributes:
        right: `(n_rows, n_examples)` 0 or 1, whether the prediction is the label.
        agree: `(n_rows, n_examples)` 0 or 1, whether it is that of the float network.
        noise: `(n_rows, n_examples)`, power of the difference from the float network's outputs, see
            `from_codes`.
        float_right: `(n_examples,)` 0 or 1, of the float network.
        float_power: `(n_examples,)`, power of its outputs.
    """

    right: Codes
    agree: Codes
    noise: Codes
    float_right: Codes
    float_power: Floats


@dataclass(frozen=True)
class Truth:
    """Measurements of the candidates of a space.

    Attributes:
        network: Name.
        keys: Canonical key of each row; candidates with the same key result in the same file.
        columns: Measurements by column, `(n_rows,)`, NaN where there is none.
        baseline: The float network's values by column.
        answers: Predictions example by example.
        statistics: Statistics that need no run, `(n_rows,)`; empty if `truth_table.py statistics` was not
            run.
        candidates: Row of each candidate, with the candidate.
    """

    network: str
    keys: Sequence[str]
    columns: Mapping[str, Floats]
    baseline: Mapping[str, float]
    answers: Answers
    statistics: Mapping[str, Floats]
    candidates: Sequence[tuple[int, Params]]

    @property
    def n_full(self) -> int:
        """Number of examples of a full evaluation."""
        return len(self.answers.float_right)

    @property
    def pool(self) -> list[Params]:
        """Every candidate that was measured."""
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
    by_key = {c["key"]: c["params"] for c in read_network(folder, network)["candidates"]}
    answers = _answers(parts, network)
    return Truth(
        network,
        keys=list(rows),
        columns={c: np.array([fact["columns"].get(c, np.nan) for fact in facts]) for c in names},
        baseline={
            "metric.top1": 100 * float(answers.float_right.mean()),
            "metric.top1_drop": 0.0,
            "metric.file_bytes": float((folder / f"{network}.onnx").stat().st_size),
        },
        answers=answers,
        statistics=_statistics(parts / f"{network}.statistics.npz", list(rows)),
        candidates=[(rows[key], params) for key in by_key if key in rows for params in by_key[key]],
    )


def _answers(parts: Path, network: str) -> Answers:
    held = [np.load(path, allow_pickle=False) for path in sorted(parts.glob(f"{network}.[0-9]*.npz"))]
    n = int(held[0]["n_examples"])

    def bits(name: str) -> Codes:
        return np.concatenate([np.unpackbits(part[name], axis=1, count=n) for part in held])

    return Answers(
        right=bits("right"),
        agree=bits("agree"),
        noise=np.concatenate([part["noise"] for part in held]),
        float_right=np.unpackbits(held[0]["float_right"], count=n),
        float_power=held[0]["float_power"].astype(np.float64),
    )


def _statistics(path: Path, keys: Sequence[str]) -> dict[str, Floats]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as held:
        position = {str(key): i for i, key in enumerate(held["keys"])}
        order = [position[key] for key in keys]
        return {name: held[name][order] for name in held.files if name != "keys"}


def table_of(truth: Truth, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()) -> Table:
    """Returns the candidates that have all objectives, as a table that can be searched."""
    rows = np.array([row for row, _ in truth.candidates])
    table = Table(
        truth.pool,
        np.stack([truth.columns[o.column][rows] for o in objectives], axis=1),
        [o.direction for o in objectives],
        rows,
        {c.name: c.excess(truth.columns[c.column][rows]) for c in constraints},  # type: ignore[arg-type,misc]
    )
    return table.part(np.isfinite(table.values).all(axis=1))


@dataclass
class ReplayedLowFidelity:
    """Low-fidelity evaluations replayed from measurements; implements `LowFidelityEvaluations`.

    Attributes:
        truth: The measurements.
        objectives: Axes of the front.
        constraints: The study's constraints.
        seed: Seed of the order of the examples.
        evaluated: Row of each evaluated candidate to the number of its examples; a larger evaluation
            continues a smaller one.
    """

    truth: Truth
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint] = ()
    seed: int = 0
    evaluated: dict[int, int] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Subset sizes in examples: those of a live study."""
        return tuple(subset_sizes(self.truth.n_full))

    @property
    def n_full(self) -> int:
        """Examples of a full evaluation."""
        return self.truth.n_full

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        return np.random.default_rng([self.seed, 2]).permutation(self.n_full)

    def cost(self, overhead: float) -> float:
        """Returns the cost of all low-fidelity evaluations so far, in full evaluations.

        Args:
            overhead: Cost of building and loading a candidate, as a share of a full evaluation; counted once
                per candidate.
        """
        return sum(self.evaluated.values()) / self.n_full + overhead * len(self.evaluated)

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns modelled costs and bytes."""
        rows = [self.truth.row(params) for params in candidates]
        values = [self._certain(o.column, rows) for o in self.objectives]
        excesses = {c.name: c.excess(self._certain(c.column, rows)) for c in self.constraints}  # type: ignore[arg-type]
        return Known(np.stack(values, axis=1), excesses, [self.truth.keys[row] for row in rows])  # type: ignore[arg-type]

    def _certain(self, column: str, rows: Sequence[int]) -> Floats:
        if column == "metric.file_bytes" or column.startswith("cost."):
            return np.asarray(self.truth.columns[column][rows])
        return np.full(len(rows), np.nan)

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, Floats]:
        """Returns the statistics that are computed without a run."""
        rows = [self.truth.row(params) for params in candidates]
        return {name: figures[rows] for name, figures in self.truth.statistics.items()}

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Returns the result on the first `n_examples` examples; the number is rounded up to one of `sizes`."""
        row = self.truth.row(candidate)
        n = next((size for size in self.sizes if size >= n_examples), self.sizes[-1])
        self.evaluated[row] = max(n, self.evaluated.get(row, 0))
        drop, error = self._drop(row, self._order[:n])
        top1 = self.truth.baseline["metric.top1"]
        estimates = {"metric.top1": (top1 - drop, error), "metric.top1_drop": (drop, error)}

        def read(column: str) -> tuple[float, float]:
            certain = float(self._certain(column, [row])[0])
            return estimates.get(column, (certain, 0.0 if np.isfinite(certain) else np.nan))

        found = np.array([read(o.column) for o in self.objectives])
        excesses = {c.name: (c.excess(read(c.column)[0]), read(c.column)[1]) for c in self.constraints}
        finite = {name: both for name, both in excesses.items() if np.isfinite(both[0])}
        return PartialResult(n, found[:, 0], found[:, 1], finite, self._features(row, self._order[:n]))

    def _drop(self, row: int, at: NDArray[np.intp]) -> tuple[float, float]:
        answers = self.truth.answers
        wanted, found = answers.float_right[at].astype(float), answers.right[row, at].astype(float)
        drop, error = paired_drop(wanted, found, self.n_full)
        return 100 * drop, 100 * error

    def _features(self, row: int, at: NDArray[np.intp]) -> dict[str, float]:
        answers = self.truth.answers
        power, noise = answers.float_power[at], from_codes(answers.noise[row, at])
        return {
            "output_sqnr_db": sqnr_db(float(power.sum()), float(noise.sum())),
            "median_sqnr_db": float(np.median(10 * np.log10(power / noise))),
            "agreement": 100 * float(answers.agree[row, at].mean()),
        }


class KnownOnly(ReplayedLowFidelity):
    """The values known beforehand only: neither statistics nor low-fidelity evaluations."""

    sizes: tuple[int, ...] = ()  # type: ignore[assignment]

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, Floats]:
        """Returns no statistics."""
        return {}

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Returns None: there are no low-fidelity evaluations."""
        return None

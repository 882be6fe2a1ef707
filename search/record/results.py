"""What a study knows: its trials, its baseline, its front. Trackers and reports read this and nothing else."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from evaluators.base import Measurement
from spaces.candidate import Candidate, Value, value_text

# Values and limits that differ by less than this share of the limit are equal: differences of rounded numbers, such as a
# drop in accuracy, are off by far less, and a limit of up to 8 GiB is still kept to the byte.
RELATIVE_TOLERANCE = 1e-10

BASELINE = -1
"""The number of the uncompressed model among trials; files call it `baseline`."""

State = Literal["complete", "pruned", "infeasible", "failed"]


@dataclass(frozen=True)
class Objective:
    """One axis of the front: a column of trials.csv and the direction that is better."""

    column: str  # metric.top1, cost.host.latency_ms, ...
    direction: Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Constraint:
    """What must hold: `column <= limit - margin` (`kind` "max") or `column >= limit + margin` (`kind` "min")."""

    name: str
    column: str
    kind: Literal["max", "min"]
    limit: float
    margin: float = 0.0  # in the column's unit

    @property
    def bound(self) -> float:
        """The limit with its margin."""
        return self.limit - self.margin if self.kind == "max" else self.limit + self.margin

    @property
    def demand(self) -> str:
        """Why a trial that cannot meet it is stopped, as a clause: the reason of a pruned trial ends with it."""
        return f"the constraint {self.name} requires it"

    def excess(self, value: float) -> float:
        """How far `value` is beyond the bound, in the column's unit; <= 0 is feasible.

        It is 0 where the two are equal but for rounding: within `RELATIVE_TOLERANCE` of the limit.
        """
        over = value - self.bound if self.kind == "max" else self.bound - value
        return over * (abs(over) > RELATIVE_TOLERANCE * abs(self.limit))


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as the study keeps it.

    Attributes:
        number: 0, 1, 2, ... in the order of completion; `BASELINE` of the uncompressed model.
        state: `complete` (met every constraint), `infeasible` (measured, but a constraint is broken), `failed`, or `pruned`
            (stopped while it was judged, because it was confidently of no use).
        reason: Why it is not `complete`; empty if it is.
        candidate: The canonical candidate.
        measurements: What the evaluators said.
        details: What explains it, JSON-able; `details["layers"]` is a list of
            `{"layer": str, "weight_sqnr_db": float | None, "output_sqnr_db": float | None, ...}` if present;
            `details["because"]` maps columns to what decided their value, in words.
        seconds: Seconds by step, e.g. `{"quantize": 0.1, "accuracy": 2.3}`.
        wall_s: Seconds from start to end of the trial.
        artifact_digest: Digest of the built file; None if it was not built.
    """

    number: int
    state: State
    reason: str
    candidate: Candidate
    measurements: tuple[Measurement, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    artifact_digest: str | None = None

    @property
    def label(self) -> str:
        """The number as files and tables show it: `12`, or `baseline`."""
        return number_label(self.number)

    def values(self) -> dict[str, float]:
        """Measurements by column name."""
        return dict(self._values)

    @cached_property
    def _values(self) -> dict[str, float]:
        # all trials share the names of their columns
        return {sys.intern(m.column): m.value for m in self.measurements}

    @property
    def cells(self) -> dict[str, str]:
        """The trial's row of trials.csv, by column."""
        return {
            "number": self.label,
            "state": self.state,
            "reason": " ".join(self.reason.split()),
            **{f"knob.{path}": value_text(value) for path, value in self.candidate.items()},
            **{column: _number_text(value) for column, value in self._values.items()},
            **{f"seconds.{step}": f"{seconds:.4f}" for step, seconds in self.seconds.items()},
            "wall_s": f"{self.wall_s:.4f}",
        }

    def estimate(self, column: str) -> tuple[float, float] | None:
        """Returns a column's value and standard error: 0 where it was measured; None if nothing is known of it.

        Of what was being measured when the trial was pruned there is an estimate.
        """
        values = self.values()
        if column in values:
            return values[column], 0.0
        error = values.get(f"{column.removesuffix('_drop')}_partial_error")
        return None if error is None else (values[f"{column}_partial"], error)

    @property
    def n_partial(self) -> int:
        """How many examples a pruned trial was judged by; 0 for any other."""
        return int(next((m.value for m in self.measurements if m.name.endswith("_partial_images")), 0))


@dataclass(frozen=True)
class Alias:
    """A proposal that was answered from the study because it comes to the same file as a trial."""

    candidate: Candidate
    same_as: int  # trial number


@dataclass(frozen=True)
class DevicePick:
    """The model to ship to one device.

    Attributes:
        device: Name of the device.
        number: Number of the trial, or `BASELINE`.
        why: Why it is the pick, as a clause.
        caveat: What speaks against it, in sentences; empty if nothing does.
        rivals: Numbers of the models that another run of the same study may pick, because they tie with it, or because the
            timings do not decide whether they do.
    """

    device: str
    number: int
    why: str
    caveat: str = ""
    rivals: tuple[int, ...] = ()


@dataclass(frozen=True)
class StudyRecord:
    """Everything about a study at one moment.

    Attributes:
        name: `study.name`.
        folder: `study.dir`.
        config: The resolved config.
        command: The exact command that reproduces the study.
        sampler: The sampler's name.
        objectives: Axes of the front, in config order; the first is the one that breaks ties.
        constraints: What must hold.
        knobs: Knob path to the values that the space allows (empty if continuous), in space order.
        notes: Remarks for people, e.g. knobs that are empty for this network.
        learned: What was learned from earlier studies, and what was not and why: a sentence each.
        prediction: What more trials would gain, in a sentence; empty while it runs, or where the sampler cannot tell.
        ended: Why no more trials were run; empty while it runs.
        baseline: The uncompressed model's measurements.
        baseline_details: What explains them, as a trial's details.
        preparation: How inputs are made and what outputs stand for, texts by name (`scaling`, `classes`), as the task tells.
        trials: All trials, by number.
        aliases: Proposals answered from the study.
        front: Trial numbers on the Pareto front, best first objective first; with `BASELINE` where the uncompressed model meets every
            constraint and nothing dominates it.
        best: Trial number of the overall pick, or `BASELINE`; None if no trial was feasible.
        best_why: One sentence.
        picks: Per device, the model to ship.
        hypervolume: Of the front, relative to the baseline's reference point; None if undefined.
        hypervolumes: The same after each trial, by position.
        wall_s: Seconds that the study has run, over all its sessions.
        environment: Package versions, CPU model, cores.
        phases: Seconds of each phase of all sessions, e.g. `start` and `search` (once for each worker), as far as known.
        proposals: What led to the sampler's proposals, JSON-able: of an allocator see `Allocator.explanation`; empty of others.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    command: str
    sampler: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    knobs: Mapping[str, tuple[Value, ...]]
    notes: tuple[str, ...]
    baseline: tuple[Measurement, ...]
    trials: tuple[TrialRecord, ...]
    aliases: tuple[Alias, ...] = ()
    front: tuple[int, ...] = ()
    best: int | None = None
    best_why: str = ""
    picks: tuple[DevicePick, ...] = ()
    hypervolume: float | None = None
    hypervolumes: tuple[float, ...] = ()
    wall_s: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    learned: tuple[str, ...] = ()
    prediction: str = ""
    ended: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    proposals: Mapping[str, Any] = field(default_factory=dict)
    baseline_details: Mapping[str, Any] = field(default_factory=dict)
    preparation: Mapping[str, str] = field(default_factory=dict)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Everything that is to be said beside the figures."""
        return (*self.notes, *self.learned, *([self.prediction] if self.prediction else []))

    def trial(self, number: int) -> TrialRecord:
        """Returns the trial of that number; of `BASELINE` the uncompressed model as a trial without knobs."""
        if number == BASELINE:
            return baseline_record(self.baseline, self.baseline_details)
        return self._by_number[number]

    @cached_property
    def _by_number(self) -> Mapping[int, TrialRecord]:
        return {t.number: t for t in self.trials}

    def states(self) -> dict[str, int]:
        """Counts trials by state."""
        counts = {"complete": 0, "pruned": 0, "infeasible": 0, "failed": 0}
        for trial in self.trials:
            counts[trial.state] += 1
        return counts

    def model_path(self, number: int) -> Path:
        """Where the ONNX file of a trial on the front is."""
        return model_path(self.folder, number)


def _number_text(value: float) -> str:
    """Shortest text that reads back as the same number; whole ones without a fraction."""
    whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
    return str(int(value)) if whole else repr(float(value))


def baseline_record(
    measurements: tuple[Measurement, ...], details: Mapping[str, Any] = MappingProxyType({})
) -> TrialRecord:
    """Returns the uncompressed model as a trial without knobs."""
    return TrialRecord(BASELINE, "complete", "", Candidate({}), measurements, details)


def number_label(number: int) -> str:
    """Returns a trial's number as files and tables show it: `12`, or `baseline` for the uncompressed model."""
    return "baseline" if number == BASELINE else str(number)


def model_name(number: int) -> str:
    """Returns what sentences call a model: `trial 12`, or `the float model`."""
    return "the float model" if number == BASELINE else f"trial {number}"


def model_path(folder: Path, number: int) -> Path:
    """Returns where the ONNX file of a trial, or of the uncompressed model, is kept in a study's folder."""
    return folder / "models" / f"trial_{number_label(number)}.onnx"

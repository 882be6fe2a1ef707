"""Everything that a study needs, and what may watch or confirm it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna

from evaluators.base import Measurement
from search.executors.base import Executor
from search.record.results import Constraint, Objective, Results, TrialRecord
from search.samplers.candidates.context import LowFidelityEvaluations
from search.tracking.base import Tracker
from search.trials.trial import TrialRunner
from spaces.candidate import Candidate
from spaces.space import Space


class Observer(Protocol):
    """Watches a study, e.g. to draw a progress bar."""

    def begin(self, results: Results, plan: "StudyPlan") -> None:
        """The study starts, or goes on."""

    def trial(self, record: TrialRecord, results: Results) -> None:
        """A trial ended."""

    def message(self, text: str) -> None:
        """Something worth telling a person."""

    def end(self) -> None:
        """The last trial ended."""


class ReEvaluator(Protocol):
    """Judges the models on the front once more: on the test split, and timed again.

    A measurement that is named as one of the trial's replaces it.
    """

    def baseline(self) -> tuple[Measurement, ...]:
        """Returns the measurements of the uncompressed model."""

    def re_evaluate(self, model: bytes) -> tuple[Measurement, ...]:
        """Returns the measurements of a file of the front."""

    def rebuild(self, candidate: Candidate) -> bytes:
        """Returns a candidate's file afresh, where the one on disk is missing."""


@dataclass(frozen=True)
class StudyPlan:
    """Everything that a study needs.

    Attributes:
        name: `study.name`.
        folder: `study.dir`.
        n_trials: Trials in all, over all sessions.
        space: What may vary.
        objectives: Axes of the front.
        constraints: What must hold.
        devices: Names of the devices, in config order.
        sampler_name: For the record.
        sampler: Makes the sampler from the number of earlier proposals, so that a resumed study does not repeat itself.
        runner: Runs one trial.
        executor: Where trials run.
        tracker: Keeps the record for others.
        identity: What must be equal to resume.
        baseline: The uncompressed model's measurements.
        config: The resolved config.
        command: What reproduces the study.
        seed: Seed of the study's own random proposals.
        storage: Optuna storage URL, `memory` or None.
        time_limit_s: Stop proposing after so many seconds, over all sessions.
        trial_time_limit_s: Stop a trial after so many seconds.
        patience: Stop after so many trials without progress.
        re_evaluator: Judges the front once more; None skips that.
        notes: Remarks for people.
        learned: What was learned from earlier studies, and what was not and why: a sentence each.
        environment: Versions and machine.
        stop_when: Called after each trial; true stops the study (e.g. the best row of a table was found).
        extra_summary: Adds keys to summary.json.
        write_report: Writes report.html; None skips it.
        record: What config.yaml holds.
        first: The candidate to begin with, whatever the sampler; None leaves the beginning to it.
        pool: The only candidates that there are, where the space's grid holds others too; None takes the space.
        snap: Returns the nearest candidate that can be measured, for one that cannot and the keys already measured.
        low_fidelity: What can be told of a candidate before its trial; None where nothing can.
        early_metric: Name of the metric (`top1`) by which a trial may stop early, once it is confidently of no use; None
            judges every candidate to the end.
        explain: Explains a file of the front, for the report; None explains nothing.
        pruner: Stops trainings that earlier ones outdo; None lets all train to the end.
    """

    name: str
    folder: Path
    n_trials: int
    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    devices: tuple[str, ...]
    sampler_name: str
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    runner: TrialRunner
    executor: Executor
    tracker: Tracker
    identity: Mapping[str, Any]
    baseline: tuple[Measurement, ...]
    config: Mapping[str, Any]
    command: str
    seed: int = 0
    storage: str | None = None
    time_limit_s: float | None = None
    trial_time_limit_s: float | None = None
    patience: int | None = None
    re_evaluator: ReEvaluator | None = None
    notes: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_when: Callable[[Results], bool] | None = None
    extra_summary: Callable[[Results], Mapping[str, Any]] | None = None
    write_report: Callable[[Results, Path], None] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    first: Candidate | None = None
    pool: Sequence[Candidate] | None = None
    snap: Callable[[Candidate, Collection[str]], Candidate | None] | None = None
    low_fidelity: LowFidelityEvaluations | None = None
    early_metric: str | None = None
    explain: Callable[[bytes], Mapping[str, Any]] | None = None
    pruner: optuna.pruners.BasePruner | None = None

"""The plan of a study, and the interfaces of its observer and its re-evaluator."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna

from evaluators.base import Measurement
from evaluators.metric import Direction
from search.executors.base import Executor
from search.record.results import Constraint, Objective, StudyRecord, TrialRecord
from search.samplers.candidates.context import LowFidelityEvaluations
from search.tracking.base import Tracker
from search.trials.expense import TrainingExpense
from search.trials.trial import TrialRunner
from spaces.candidate import Candidate
from spaces.space import Space


class Observer(Protocol):
    """Watches a study, e.g. to draw a progress bar."""

    def begin(self, results: StudyRecord, plan: "StudyPlan") -> None:
        """Called when the study starts or resumes."""

    def trial(self, record: TrialRecord, results: StudyRecord) -> None:
        """Called after each trial."""

    def message(self, text: str) -> None:
        """Called with a message for the user."""

    def end(self) -> None:
        """Called after the last trial."""


class FrontVolume(Protocol):
    """Measures how good a front is by one number, e.g. its hypervolume."""

    @property
    def defined(self) -> bool:
        """Whether the study's objectives have such a number."""

    def of(self, records: Sequence[TrialRecord]) -> float:
        """Returns the number for feasible records, at least 0; larger is better."""


class ReEvaluator(Protocol):
    """Evaluates the models on the front again: on the test split, and with new timings.

    A model is an ONNX file, or None for the uncompressed model. A new measurement replaces the trial's measurement of
    the same name.
    """

    def on_test(self, model: bytes | None) -> tuple[Measurement, ...]:
        """Returns a model's measurements on the test split."""

    def time_again(self, models: Sequence[bytes | None], n_rounds: int, offset: int) -> list[list[float]]:
        """Times models in turns, after `offset` earlier rounds; returns ms, `(n_models, n_rounds)`; empty if nothing times."""

    def timed(
        self, model: bytes | None, own_ms: Sequence[float], float_ms: Sequence[float]
    ) -> tuple[Measurement, ...]:
        """Returns the costs that follow from times by round, and those that are timed in another way."""

    def dense(self) -> bytes:
        """Returns the uncompressed model as an ONNX file."""

    def rebuild(self, candidate: Candidate) -> bytes:
        """Builds a candidate's ONNX file again, where the one on disk is missing."""


@dataclass(frozen=True)
class StudyPlan:
    """Everything that a study needs.

    Attributes:
        name: `study.name`.
        folder: `study.dir`.
        n_trials: Trials in all, over all sessions.
        space: The search space.
        objectives: Axes of the front.
        constraints: Limits that a feasible trial keeps.
        devices: Names of the devices, in config order.
        sampler_name: Name of the sampler, for the record.
        sampler: Makes the sampler from the number of earlier proposals, so that a resumed study does not repeat itself.
        runner: Runs one trial.
        executor: Where trials run.
        tracker: Logs the study, e.g. to MLflow.
        identity: Section name to a JSON-able description; a study is resumed only if these are equal.
        baseline: The uncompressed model's measurements.
        measuring_s: Seconds that it took to measure it; None where that is no example of a trial.
        start_s: Seconds that it took to load everything, up to the study.
        config: The resolved config.
        command: The command line that reproduces the study.
        seed: Seed of the study's own random proposals.
        storage: Optuna storage URL, `memory` or None.
        time_limit_s: Stop proposing after so many seconds, over all sessions.
        trial_time_limit_s: Stop a trial after so many seconds.
        patience: Stop after so many trials without progress.
        re_evaluator: Re-evaluates the front after the search; None skips that.
        notes: Remarks for the user.
        preparation: How inputs are made and what outputs stand for, texts by name.
        learned: A sentence for each group of earlier studies: what was learned from them, or why they were
            not used.
        environment: Versions and machine.
        stop_when: Called after each trial; true stops the study (e.g. the best row of a table was found).
        extra_summary: Adds keys to summary.json.
        write_report: Writes report.html; None skips it.
        record: The content of config.yaml.
        first: The candidates of the first trials; the sampler chooses the others, and those that its method `admits` refuses.
        pool: The only valid candidates, where the space's grid contains others too; None allows the whole
            space.
        snap: Returns the nearest candidate that can be measured, given one that cannot and the keys already
            measured.
        low_fidelity: Low-fidelity evaluations of candidates before their trials; None where there are none.
        early_metric: Name of the metric (`top1`) whose confidence bound may stop a trial early; None
            evaluates every candidate to the end.
        early_direction: Whether higher or lower values of that metric are better.
        explain: Returns details that explain an ONNX file of the front, for the report; None explains
            nothing.
        expense: Learns what trainings cost that several candidates share; None where nothing is trained or the budget is no
            time.
        pruner: Stops trainings that are worse than earlier ones; None trains all to the end.
        volume: Measures fronts; None takes their hypervolume relative to the baseline.
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
    measuring_s: float | None = None
    start_s: float = 0.0
    storage: str | None = None
    time_limit_s: float | None = None
    trial_time_limit_s: float | None = None
    patience: int | None = None
    re_evaluator: ReEvaluator | None = None
    notes: tuple[str, ...] = ()
    preparation: Mapping[str, str] = field(default_factory=dict)
    learned: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_when: Callable[[StudyRecord], bool] | None = None
    extra_summary: Callable[[StudyRecord], Mapping[str, Any]] | None = None
    write_report: Callable[[StudyRecord, Path], None] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    first: Sequence[Candidate] = ()
    pool: Sequence[Candidate] | None = None
    snap: Callable[[Candidate, Collection[str]], Candidate | None] | None = None
    low_fidelity: LowFidelityEvaluations | None = None
    early_metric: str | None = None
    early_direction: Direction = "maximize"
    explain: Callable[[bytes], Mapping[str, Any]] | None = None
    pruner: optuna.pruners.BasePruner | None = None
    expense: TrainingExpense | None = None
    volume: FrontVolume | None = None

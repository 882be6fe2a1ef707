"""The study: asks the sampler, hands candidates to the executor, keeps the record, and knows when to stop."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna

from evaluators.base import Measurement
from search import files
from search.executors.base import Executor
from search.front import Volume, overall_best, pareto_front, picks
from search.ledger import Ledger
from search.results import Alias, Constraint, Objective, Results, TrialRecord
from search.suggest import candidates, params_of, suggest
from search.tracking.base import Tracker
from search.trial import TrialRequest, TrialResult, TrialRunner
from spaces.candidate import Candidate, Value
from spaces.errors import ParedownError, StageError
from spaces.space import Space

_MISSES_IN_A_ROW = 32  # proposals that are no new trial, before the study proposes one itself
_RANDOM_DRAWS = 1000
_BASELINE = -1  # stands for the uncompressed model among the confirmed ones


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


class Confirmer(Protocol):
    """Judges the models on the front once more: on the test split, and timed again.

    A measurement that is named as one of the trial's replaces it.
    """

    def baseline(self) -> tuple[Measurement, ...]:
        """Returns the measurements of the uncompressed model."""

    def confirm(self, model: bytes) -> tuple[Measurement, ...]:
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
        confirmer: Judges the front once more; None skips that.
        notes: Remarks for people.
        environment: Versions and machine.
        stop_when: Called after each trial; true stops the study (e.g. the best row of a table was found).
        extra_summary: Adds keys to summary.json.
        write_report: Writes report.html; None skips it.
        record: What config.yaml holds.
        pool: The only candidates that there are, where the space's grid holds others too; None takes the space.
        snap: Returns the nearest candidate that can be measured, for one that cannot and the keys already measured.
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
    confirmer: Confirmer | None = None
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_when: Callable[[Results], bool] | None = None
    extra_summary: Callable[[Results], Mapping[str, Any]] | None = None
    write_report: Callable[[Results, Path], None] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    pool: Sequence[Candidate] | None = None
    snap: Callable[[Candidate, Collection[str]], Candidate | None] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a study ended.

    Attributes:
        results: What it knows.
        interrupted: Whether Ctrl-C ended it.
        why: Why no more trials were run.
    """

    results: Results
    interrupted: bool
    why: str


def run_study(plan: StudyPlan, observer: Observer) -> Outcome:
    """Runs, or resumes, a study until its budget is spent.

    Raises:
        StudyError: The folder cannot be used, or holds a study of something else.
    """
    with Ledger(
        plan.name, plan.folder, plan.storage, plan.objectives, plan.constraints, plan.identity
    ) as ledger:
        return _Study(plan, ledger, observer).run()


class _Study:
    """One session of a study."""

    def __init__(self, plan: StudyPlan, ledger: Ledger, observer: Observer) -> None:
        self._plan, self._ledger, self._observer = plan, ledger, observer
        self._began = time.monotonic()
        self._earlier_s = float(ledger.noted("wall_s") or 0.0)
        self._rng = np.random.default_rng([plan.seed, ledger.n_proposed])
        self._running: dict[int, tuple[optuna.trial.Trial, str]] = {}  # by proposal: the trial and its key
        self._followers: dict[str, list[tuple[optuna.trial.Trial, Candidate]]] = {}
        self._keys: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._rejections: dict[str, int] = {}
        self._unseen: Iterator[Candidate] | None = None
        self._volume = Volume(plan.objectives, plan.constraints, {m.column: m.value for m in plan.baseline})
        self._volumes: list[float] = []
        for record in ledger.records:
            self._remember(record)
        ledger.use(plan.sampler(ledger.n_proposed))

    # -- the session -------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        plan = self._plan
        interrupted, why = False, ""
        files.write_config(plan.folder, plan.record)
        results = self._results()
        plan.tracker.start(results)
        self._observer.begin(results, plan)
        try:
            try:
                why = self._run_trials()
                self._confirm_front()
            except KeyboardInterrupt:
                interrupted, why = True, "interrupted"
            results = self._finish()
        finally:
            plan.tracker.close()
        return Outcome(results, interrupted, why)

    def _run_trials(self) -> str:
        try:
            self._plan.executor.start(self._plan.runner)
            return self._search()
        finally:
            self._plan.executor.close()
            self._observer.end()

    def _search(self) -> str:
        while True:
            why = self._why_stop()
            while not why and len(self._running) < self._plan.executor.slots and self._budget_left() > 0:
                request = self._propose()
                if request is None:
                    why = "" if self._running else "every candidate of the space has been measured"
                    break
                self._plan.executor.submit(request)
            if not self._running:
                return why or "study.n_trials is reached"
            result = self._plan.executor.next_result()
            if result is not None:
                self._take(result)

    def _budget_left(self) -> int:
        return self._plan.n_trials - len(self._ledger.records) - len(self._running)

    def _why_stop(self) -> str:
        plan, records = self._plan, self._ledger.records
        if plan.time_limit_s is not None and self._wall_s() >= plan.time_limit_s:
            return "study.time_limit is reached"
        if plan.patience is not None and len(records) - self._last_progress() > plan.patience:
            return f"no progress in {plan.patience} trials (study.patience)"
        if plan.stop_when is not None and records and plan.stop_when(self._results()):
            return "the goal is reached"
        return ""

    def _last_progress(self) -> int:
        """Number of trials up to the last one that improved the front."""
        gains = self._volumes if self._volume.defined else self._best_so_far()
        return next((i + 1 for i in range(len(gains) - 1, -1, -1) if i == 0 or gains[i] > gains[i - 1]), 0)

    def _best_so_far(self) -> list[float]:
        main = self._plan.objectives[0]
        sign = 1.0 if main.direction == "maximize" else -1.0
        values = [
            sign * r.values().get(main.column, -math.inf * sign) if r.state == "complete" else -math.inf
            for r in self._ledger.records
        ]
        return np.maximum.accumulate(values).tolist() if values else []

    # -- proposing ---------------------------------------------------------------------------------------------

    def _propose(self) -> TrialRequest | None:
        """Returns the next candidate that is worth a trial, or None if there is none (now)."""
        misses = 0
        while True:
            if misses and misses % _MISSES_IN_A_ROW == 0:
                fresh = self._random_unseen()
                if fresh is None:
                    return None
                self._ledger.enqueue(params_of(self._plan.space, fresh))
            trial = self._ledger.ask()
            candidate = suggest(trial, self._plan.space)
            key = self._key_of(trial, candidate)
            if key is not None:
                self._running[trial.number] = (trial, key)
                known = dict(self._files)
                return TrialRequest(trial.number, candidate, known, self._plan.trial_time_limit_s)
            misses += 1

    def _key_of(self, trial: optuna.trial.Trial, candidate: Candidate) -> str | None:
        """Returns the candidate's key if it needs a trial; answers or drops the proposal otherwise."""
        broken = self._plan.space.broken(candidate)
        if broken is not None:
            self._ledger.reject(trial)
            return None
        try:
            key = self._plan.runner.key(candidate)
        except StageError as error:
            self._ledger.reject(trial)
            self._rejected(candidate, error)
            return None
        if key in self._keys:
            self._ledger.alias(trial, Alias(candidate, self._keys[key]))
            return None
        if any(key == running for _, running in self._running.values()):
            self._followers.setdefault(key, []).append((trial, candidate))
            return None
        return key

    def _rejected(self, candidate: Candidate, error: StageError) -> None:
        if self._plan.snap is None:
            self._rejections[str(error)] = self._rejections.get(str(error), 0) + 1
            return
        running = {key for _, key in self._running.values()}
        near = self._plan.snap(candidate, self._keys.keys() | running)
        if near is not None:
            self._ledger.enqueue(params_of(self._plan.space, near))

    def _random_unseen(self) -> Candidate | None:
        running = {key for _, key in self._running.values()}
        for candidate in self._random_candidates():
            try:
                key = self._plan.runner.key(candidate)
            except StageError:
                continue
            if key not in self._keys and key not in running:
                return candidate
        return None

    def _random_candidates(self) -> Iterator[Candidate]:
        space = self._plan.space
        listed = self._plan.pool or candidates(space)
        if listed is None:
            return (space.sample(self._rng) for _ in range(_RANDOM_DRAWS))
        if self._unseen is None:
            # one shuffled pass serves the whole session: what it has gone over stays seen
            order = list(listed)
            self._rng.shuffle(order)
            self._unseen = iter(order)
        return self._unseen

    # -- taking results ----------------------------------------------------------------------------------------

    def _take(self, result: TrialResult) -> None:
        trial, key = self._running.pop(result.id)
        same_as = result.same_as
        if same_as is None and result.outcome == "measured" and result.artifact_digest in self._files:
            same_as = self._files[result.artifact_digest or ""]  # two workers built the same file at once
        if same_as is not None:
            self._keys[key] = same_as
            self._ledger.alias(trial, Alias(result.candidate, same_as))
        else:
            self._add(trial, key, result)
        for follower, candidate in self._followers.pop(key, []):
            self._ledger.alias(follower, Alias(candidate, self._keys[key]))

    def _add(self, trial: optuna.trial.Trial, key: str, result: TrialResult) -> None:
        record = self._judged(result)
        if record.state == "complete" and result.model is not None:
            front = pareto_front([*self._ledger.records, record], self._plan.objectives)
            if record.number in front:
                files.write_model(self._plan.folder, record, result.model)
        self._ledger.add(trial, record)
        self._ledger.note("wall_s", self._wall_s())
        self._remember(record, key)
        results = self._results()
        files.write_trials(results)
        self._plan.tracker.trial(record, results)
        self._observer.trial(record, results)

    def _judged(self, result: TrialResult) -> TrialRecord:
        record = TrialRecord(
            number=len(self._ledger.records),
            state="failed" if result.outcome == "failed" else "complete",
            reason=result.reason,
            candidate=result.candidate,
            measurements=result.measurements,
            details=result.details,
            seconds=result.seconds,
            wall_s=result.wall_s,
            artifact_digest=result.artifact_digest,
        )
        if record.state == "failed":
            return record
        values = record.values()
        wanted = [*(o.column for o in self._plan.objectives), *(c.column for c in self._plan.constraints)]
        bad = next((c for c in wanted if not math.isfinite(values.get(c, math.nan))), None)
        if bad is not None:
            what = "absent" if bad not in values else f"{values[bad]}"
            return replace(record, state="failed", reason=f"{bad} is {what}, but the study needs it")
        broken = [
            (c, c.excess(values[c.column])) for c in self._plan.constraints if c.excess(values[c.column]) > 0
        ]
        if broken:
            text = "; ".join(_breach(c, values[c.column], excess) for c, excess in broken)
            return replace(record, state="infeasible", reason=text)
        return record

    def _remember(self, record: TrialRecord, key: str | None = None) -> None:
        if key is None:
            try:
                key = self._plan.runner.key(record.candidate)
            except ParedownError:
                key = record.candidate.digest
        self._keys[key] = record.number
        if record.artifact_digest is not None and record.state != "failed":
            self._files[record.artifact_digest] = record.number
        if self._volume.defined:
            upto = self._ledger.records[: record.number + 1]
            front = set(pareto_front(upto, self._plan.objectives))
            self._volumes.append(self._volume.of([r for r in upto if r.number in front]))

    # -- what the study knows ----------------------------------------------------------------------------------

    def _wall_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._began

    def _results(self) -> Results:
        plan = self._plan
        records = [self._with_confirmed(r) for r in self._ledger.records]
        front = pareto_front(records, plan.objectives)
        on_front = [records[number] for number in front]
        device_picks = picks(on_front, plan.objectives, plan.constraints, plan.devices)
        best, why = overall_best(on_front, plan.objectives, plan.constraints, device_picks)
        notes = [
            *plan.notes,
            *(f"{n} proposals could not be built: {text}" for text, n in self._rejections.items()),
        ]
        return Results(
            name=plan.name, folder=plan.folder, config=plan.config, command=plan.command, sampler=plan.sampler_name,
            objectives=plan.objectives, constraints=plan.constraints, knobs=_knob_values(plan.space), notes=tuple(notes),
            baseline=_overridden(plan.baseline, self._ledger.confirmed(_BASELINE) or ()), trials=tuple(records), aliases=tuple(self._ledger.aliases), front=front,
            best=best, best_why=why, picks=device_picks,
            hypervolume=self._volumes[-1] if self._volumes else None, hypervolumes=tuple(self._volumes),
            wall_s=self._wall_s(), environment=plan.environment,
        )  # fmt: skip

    def _with_confirmed(self, record: TrialRecord) -> TrialRecord:
        again = self._ledger.confirmed(record.number)
        return (
            record if again is None else replace(record, measurements=_overridden(record.measurements, again))
        )

    def _confirm_front(self) -> None:
        """Judges the front once more, until every model on it has been: a second timing may change who is on it."""
        confirmer = self._plan.confirmer
        while confirmer is not None:
            waiting = [n for n in self._results().front if self._ledger.confirmed(n) is None]
            if not waiting:
                return
            if self._ledger.confirmed(_BASELINE) is None:
                self._ledger.note_confirmed(_BASELINE, confirmer.baseline())
            self._observer.message(
                f"scoring the front on the test split and timing it again: {len(waiting)} models"
            )
            for number in waiting:
                self._confirm(confirmer, self._ledger.records[number])

    def _confirm(self, confirmer: Confirmer, record: TrialRecord) -> None:
        path = files.model_path(self._plan.folder, record.number)
        if not path.exists():
            files.write_model(self._plan.folder, record, confirmer.rebuild(record.candidate))
        try:
            again = confirmer.confirm(path.read_bytes())
        except ParedownError as error:
            again = ()
            self._observer.message(f"trial {record.number} could not be judged again: {error}")
        self._ledger.note_confirmed(record.number, again)

    def _finish(self) -> Results:
        plan = self._plan
        self._ledger.note("wall_s", self._wall_s())
        results = self._results()
        files.drop_models_off_front(results)
        files.write_trials(results)
        files.write_front(results)
        extra = plan.extra_summary(results) if plan.extra_summary is not None else {}
        files.write_summary(results, extra)
        if plan.write_report is not None:
            plan.write_report(results, plan.folder / "report.html")
        plan.tracker.finish(results)
        return results


def _overridden(first: Sequence[Measurement], again: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Returns the later measurements in the place of the first ones, which stay as `first_*`."""
    later = {m.column for m in again}
    kept = (replace(m, name=f"first_{m.name}") if m.column in later else m for m in first)
    return (*kept, *again)


def _breach(constraint: Constraint, value: float, excess: float) -> str:
    side = "above" if constraint.kind == "max" else "below"
    name = constraint.column.partition(".")[2]
    return (
        f"{constraint.name}: {name} is {value:.6g}, {excess:.4g} {side} the limit of {constraint.limit:.6g}"
    )


def _knob_values(space: Space) -> dict[str, tuple[Value, ...]]:
    found: dict[str, tuple[Value, ...]] = {}
    for knob in space.knobs:
        found[knob.path] = (
            tuple(knob.domain) if knob.domain.size is not None and knob.domain.size <= 1000 else ()
        )
    return found

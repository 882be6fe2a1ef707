"""The study: asks the sampler, submits candidates to the executor, keeps the record, decides when to stop."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import optuna

from search.knowledge.notes import weight_note
from search.record import study_files as files
from search.record.front import broken_by_baseline, feasible_baseline, pareto_front, possible_front
from search.record.hypervolume import Volume
from search.record.picks import overall_best, picks
from search.record.results import BASELINE, Alias, StudyRecord, TrialRecord
from search.record.storage.tables import TrialTables
from search.record.suggest import params_of
from search.report.attempts import LOG, Attempts
from search.study.early_stopping import EarlyStoppingThresholds
from search.study.interrupts import Interrupts
from search.study.ledger import Ledger
from search.study.patience import Patience
from search.study.plan import Observer, StudyPlan
from search.study.proposer import Proposer
from search.study.re_evaluation import ReEvaluation
from search.study.time_account import TimeAccount
from search.study.verdict import verdict
from search.study.waits import waits_told
from search.tracking.mlflow_story import description
from search.trials.trial import TIMED_BESIDE, TrialResult
from spaces.candidate import Value
from spaces.errors import ParedownError
from spaces.space import Space


@dataclass(frozen=True)
class Outcome:
    """How a study ended.

    Attributes:
        results: The study's results.
        interrupted: Whether a signal ended it, Ctrl-C, SIGTERM or SIGHUP.
        why: Why no more trials were run.
        signal: Number of the first signal that arrived, even if the search had ended by then; None if none did.
        failed: Which outputs could not be made after the search, and where the details are, in a sentence; empty if all were.
    """

    results: StudyRecord
    interrupted: bool
    why: str
    signal: int | None = None
    failed: str = ""


def run_study(plan: StudyPlan, observer: Observer) -> Outcome:
    """Runs, or resumes, a study until its budget is spent.

    Raises:
        StudyError: The folder cannot be used, or its study has another identity.
    """
    with (
        files.errors_told(plan.folder),
        Ledger(
            plan.name, plan.folder, plan.storage, plan.objectives, plan.constraints, plan.identity
        ) as ledger,
    ):
        return _Study(plan, ledger, observer).run()


def results_before(plan: StudyPlan) -> StudyRecord:
    """Returns the results of a study before its first trial."""
    return StudyRecord(
        name=plan.name, folder=plan.folder, config=plan.config, command=plan.command, sampler=plan.sampler_name,
        objectives=plan.objectives, constraints=plan.constraints, knobs=_knob_values(plan.space), notes=plan.notes,
        baseline=plan.baseline, trials=(), environment=plan.environment, learned=plan.learned,
        preparation=plan.preparation,
    )  # fmt: skip


class _Study:
    """One session of a study."""

    def __init__(self, plan: StudyPlan, ledger: Ledger, observer: Observer) -> None:
        self._plan, self._ledger, self._observer = plan, ledger, observer
        self._re_evaluation = ReEvaluation(plan, ledger, observer)
        self._tables = TrialTables(plan.folder)
        self._before = results_before(plan)
        self._patience = Patience(plan.patience, plan.objectives[0])
        self._interrupts = Interrupts()
        self._outputs = Attempts(plan.folder)
        self._prediction = ""  # of what more trials would gain
        self._account = TimeAccount(ledger, plan.start_s)
        self._began = time.monotonic()
        self._earlier_s = float(ledger.noted("wall_s") or 0.0)
        self._keys: dict[str, int] = {}
        self._files: dict[str, int] = {}
        sampler = plan.sampler(ledger.n_proposed)
        self._proposer = Proposer(plan, ledger, self._keys, EarlyStoppingThresholds(plan, sampler))
        before = {m.column: m.value for m in plan.baseline}
        self._volume = plan.volume or Volume(plan.objectives, plan.constraints, before)
        self._volumes: list[float] = []
        self._front: list[TrialRecord] = []  # by the measurements of the trials, before any re-evaluation
        for record in ledger.records:
            self._remember(record)
        ledger.use(sampler)
        if not ledger.n_proposed:
            for first in (params_of(plan.space, candidate) for candidate in plan.first):
                if getattr(sampler, "admits", lambda params: True)(first):
                    ledger.enqueue(first)

    # -- the session -------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        lock = getattr(self._plan.runner, "lock", None)
        with self._interrupts.noted(), waits_told(lock, self._observer.message):
            return self._run()

    def _run(self) -> Outcome:
        plan, interrupts = self._plan, self._interrupts
        interrupted, why = False, ""
        (plan.folder / LOG).unlink(missing_ok=True)
        files.write_config(plan.folder, plan.record)
        results = self._results()
        if results.trials:
            self._tables.rewrite(results)
        self._show(results)
        plan.tracker.start(results)
        self._observer.begin(results, plan)
        try:
            try:
                why = self._run_trials()
            except KeyboardInterrupt:
                interrupted, why = True, interrupts.text
            interrupts.end()
            with self._account.phase("report"):
                results = self._finish(why)
        finally:
            with self._account.phase("report"):
                interrupts.optional(lambda: self._outputs.make("the tracker's record", plan.tracker.close))
        self._account.keep()
        results = replace(results, phases=self._account.seconds())
        return Outcome(results, interrupted, why, interrupts.signal, self._outputs.message)

    def _run_trials(self) -> str:
        """Runs trials, then re-evaluates and explains the front; returns why no more trials were run."""
        executor = self._plan.executor
        try:
            with self._account.phase("start"):
                executor.start(self._plan.runner)
            self._interrupts.install()
            try:
                with self._account.search(executor.slots):
                    why = self._search()
            finally:
                with self._interrupts.held():
                    self._observer.end()
            with self._account.phase("re_evaluation"):
                self._re_evaluation.re_evaluate(self._results)
            with self._account.phase("explanation"):
                self._re_evaluation.explain(self._results())
            self._prediction = self._predicted()  # low-fidelity evaluations for it need workers
            self._interrupts.check()
        finally:
            with self._interrupts.held():
                executor.close()
        return why

    def _search(self) -> str:
        while True:
            self._interrupts.check()
            why = self._why_stop()
            while (
                not why and self._proposer.n_running < self._plan.executor.slots and self._budget_left() > 0
            ):
                request = self._proposer.propose(self._files)
                if request is None:
                    why = "" if self._proposer.n_running else "every candidate of the space has been measured"
                    break
                if self._plan.executor.in_process:
                    self._ledger.begin(self._proposer.trial(request.id), request.candidate)
                self._plan.executor.submit(request)
            if not self._proposer.n_running:
                return why or "study.n_trials is reached"
            result = self._plan.executor.next_result()
            if result is not None:
                if result.reason.startswith("WorkerError"):
                    self._interrupts.settle()
                with self._interrupts.held():
                    self._take(result)

    def _budget_left(self) -> int:
        return self._plan.n_trials - len(self._ledger.records) - self._proposer.n_running

    def _why_stop(self) -> str:
        plan, records = self._plan, self._ledger.records
        if plan.time_limit_s is not None and self._wall_s() >= plan.time_limit_s:
            return "study.time_limit is reached"
        if plan.patience is not None and (
            why := self._patience.why_stop(records, self._last_progress(), self._ledger.forecast)
        ):
            return why
        if plan.stop_when is not None and records and plan.stop_when(self._results()):
            return "the goal is reached"
        return ""

    def _last_progress(self) -> int:
        """Returns the number of trials up to the last one that improved the front."""
        progress = self._volumes if self._volume.defined else self._best_so_far()
        return next(
            (i + 1 for i in range(len(progress) - 1, -1, -1) if i == 0 or progress[i] > progress[i - 1]), 0
        )

    def _best_so_far(self) -> list[float]:
        main = self._plan.objectives[0]
        sign = 1.0 if main.direction == "maximize" else -1.0
        values = [
            sign * r.values().get(main.column, -math.inf * sign) if r.state == "complete" else -math.inf
            for r in self._ledger.records
        ]
        return np.maximum.accumulate(values).tolist() if values else []

    # -- taking results ----------------------------------------------------------------------------------------

    def _take(self, result: TrialResult) -> None:
        proposal = self._proposer.finished(result.id)
        trial, key = proposal.trial, proposal.key
        result = _with_seconds(result, proposal.seconds)
        same_as = result.same_as
        judged = result.outcome in ("measured", "pruned")
        if same_as is None and judged and result.artifact_digest in self._files:
            same_as = self._files[result.artifact_digest or ""]  # two workers built the same file at once
        if same_as is not None:
            self._keys[key] = same_as
            self._account.add("duplicates", result.wall_s)
            self._ledger.alias(trial, Alias(result.candidate, same_as))
        else:
            self._add(trial, key, result)
        for follower, candidate in self._proposer.followers(key):
            self._ledger.alias(follower, Alias(candidate, self._keys[key]))

    def _add(self, trial: optuna.trial.Trial, key: str, result: TrialResult) -> None:
        record = verdict(result, len(self._ledger.records), self._plan.objectives, self._plan.constraints)
        if result.model is not None and self._may_be_on_front(record):
            files.write_model(self._plan.folder, record, result.model)
        self._ledger.add(trial, record)
        self._ledger.note("wall_s", self._wall_s())
        self._account.keep()
        self._remember(record, key)
        results = self._results()
        self._tables.add(results)
        self._plan.tracker.trial(record, results)
        self._observer.trial(record, results)

    def _remember(self, record: TrialRecord, key: str | None = None) -> None:
        if key is None:
            try:
                key = self._plan.runner.key(record.candidate)
            except ParedownError:
                key = record.candidate.digest
        self._keys[key] = record.number
        if self._plan.expense is not None and record.state != "failed":
            self._plan.expense.add(record)
        if record.artifact_digest is not None and record.state != "failed":
            self._files[record.artifact_digest] = record.number
        self._front = self._front_with(record)
        if self._volume.defined:
            self._volumes.append(self._volume.of(self._front))

    def _may_be_on_front(self, record: TrialRecord) -> bool:
        """Whether a trial's file is kept: it is on the front, or would be by a better timing."""
        plan = self._plan
        return record.number in possible_front([*self._front, record], plan.objectives, plan.constraints)

    def _front_with(self, record: TrialRecord) -> list[TrialRecord]:
        """Returns the front with one more trial; trials that were dominated stay dominated."""
        known = {r.number: r for r in (*self._front, record)}
        return [known[n] for n in sorted(pareto_front(list(known.values()), self._plan.objectives))]

    # -- results and files -----------------------------------------------------------------------------------

    def _wall_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._began

    def _results(self) -> StudyRecord:
        plan = self._plan
        records = self._re_evaluation.records()
        # a re-evaluated timing may bring a trial to the front that was dominated before
        pool = records if self._ledger.has_later_results else self._front
        baseline = self._re_evaluation.baseline()
        dense = feasible_baseline(baseline, plan.objectives, plan.constraints)
        front = pareto_front(pool, plan.objectives)
        if front and dense is not None:
            front = pareto_front([dense, *pool], plan.objectives)
        on_front = [baseline if number == BASELINE else records[number] for number in front]
        broken = broken_by_baseline(baseline, plan.constraints)
        device_picks = picks(
            on_front, plan.objectives, plan.constraints, plan.devices, baseline.values(), broken
        )
        best, why = overall_best(on_front, plan.objectives, plan.constraints, device_picks)
        notes = [
            *plan.notes,
            *(f"{n} proposals could not be built: {text}" for text, n in self._proposer.rejections.items()),
            *filter(None, [weight_note(self._ledger.knowledge_weights)]),
        ]
        return replace(
            self._before, notes=tuple(notes), baseline=baseline.measurements, baseline_details=baseline.details, trials=tuple(records),
            aliases=tuple(self._ledger.aliases), front=front, best=best, best_why=why, picks=device_picks,
            hypervolume=self._volumes[-1] if self._volumes else None, hypervolumes=tuple(self._volumes),
            wall_s=self._wall_s(), phases=self._account.seconds(), proposals=self._ledger.explanation,
        )  # fmt: skip

    def _predicted(self) -> str:
        return self._patience.prediction(self._ledger.records, self._ledger.forecast)

    def _finish(self, why: str) -> StudyRecord:
        plan = self._plan
        self._ledger.note("wall_s", self._wall_s())
        self._ledger.note_explanation()
        prediction = self._prediction or self._predicted()
        results = self._results()
        notes = (*results.notes, *_disturbed(results))
        results = replace(results, prediction=prediction, ended=why, notes=notes)
        files.drop_models_off_front(results)
        self._tables.rewrite(results)
        files.write_front(results)
        extra = plan.extra_summary(results) if plan.extra_summary is not None else {}
        files.write_summary(results, extra)
        self._interrupts.optional(
            lambda: self._outputs.make("report.html", lambda: self._write_report(results))
        )
        self._show(results)
        self._outputs.make("the tracker's record", lambda: plan.tracker.finish(results))
        return results

    def _write_report(self, results: StudyRecord) -> None:
        write, path = self._plan.write_report, self._plan.folder / "report.html"
        if write is None:
            return
        try:
            with files.errors_told(self._plan.folder):
                write(results, path)
        except Exception:
            path.unlink(missing_ok=True)  # an earlier session's would tell of other trials
            raise

    def _show(self, results: StudyRecord) -> None:
        """Shows the state of the study in optuna-dashboard, as a note."""
        self._outputs.make("the note", lambda: self._ledger.show(description(results)))


def _disturbed(results: StudyRecord) -> list[str]:
    """Returns a sentence on timings that were made while other studies computed, if any were."""
    n_disturbed = sum(TIMED_BESIDE in record.details for record in results.trials)
    if not n_disturbed:
        return []
    return [
        f"{n_disturbed} of {len(results.trials)} trials were timed while other studies computed on this machine: "
        "waiting longer for them would have held this study up"
    ]


def _with_seconds(result: TrialResult, before: Mapping[str, float]) -> TrialResult:
    """Adds the seconds that passed before a worker received the trial."""
    wall_s = result.wall_s + sum(before.values())
    return replace(result, seconds={**before, **result.seconds}, wall_s=wall_s)


def _knob_values(space: Space) -> dict[str, tuple[Value, ...]]:
    """Returns knob path to the knob's values; empty where there are more than 1,000 or infinitely many."""
    values: dict[str, tuple[Value, ...]] = {}
    for knob in space.knobs:
        values[knob.path] = (
            tuple(knob.domain) if knob.domain.size is not None and knob.domain.size <= 1000 else ()
        )
    return values

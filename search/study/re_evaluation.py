"""Work on finished trials: re-evaluates the front, and explains the models that the report compares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from evaluators.base import Measurement
from search.record import study_files as files
from search.record.results import StudyRecord, TrialRecord, model_path
from search.study.ledger import Ledger
from search.study.plan import Observer, ReEvaluator, StudyPlan
from spaces.errors import ParedownError

_BASELINE = -1  # the uncompressed model's number among the re-evaluated trials


class ReEvaluation:
    """Re-evaluates and explains finished trials, and adds the results to their records.

    Args:
        plan: The study's plan.
        ledger: The study's record, which stores the results.
        observer: Receives a message before each long step and for each error.
    """

    def __init__(self, plan: StudyPlan, ledger: Ledger, observer: Observer) -> None:
        self._plan, self._ledger, self._observer = plan, ledger, observer

    def records(self) -> list[TrialRecord]:
        """Returns all trials, with the results of re-evaluation and explanation."""
        records = self._ledger.records
        return [self._complemented(r) for r in records] if self._ledger.has_later_results else list(records)

    def baseline(self) -> tuple[Measurement, ...]:
        """Returns the uncompressed model's measurements, with those of its re-evaluation."""
        return _overridden(self._plan.baseline, self._ledger.re_evaluated(_BASELINE) or ())

    def re_evaluate(self, results: Callable[[], StudyRecord]) -> None:
        """Re-evaluates the front until all of its models have been: new timings may change the front."""
        re_evaluator = self._plan.re_evaluator
        while re_evaluator is not None:
            waiting = [n for n in results().front if self._ledger.re_evaluated(n) is None]
            if not waiting:
                return
            if self._ledger.re_evaluated(_BASELINE) is None:
                self._ledger.note_re_evaluated(_BASELINE, re_evaluator.baseline())
            self._observer.message(
                f"scoring the front on the test split and timing it again: {len(waiting)} models"
            )
            for number in waiting:
                self._re_evaluate(re_evaluator, number)

    def explain(self, results: StudyRecord) -> None:
        """Explains the models that the report compares; explaining all would take longer than the trials."""
        waiting = [n for n in _compared(results) if self._ledger.explained(n) is None]
        if self._plan.explain is None or not waiting:
            return
        self._observer.message(f"comparing the layers of {len(waiting)} models with the float model's")
        for number in waiting:
            details: Mapping[str, object] = {}
            try:
                details = self._plan.explain(self._model(number))
            except (ParedownError, OSError) as error:
                self._observer.message(f"trial {number} could not be explained: {error}")
            self._ledger.note_explained(number, details)

    def _re_evaluate(self, re_evaluator: ReEvaluator, number: int) -> None:
        record = self._ledger.records[number]
        path = model_path(self._plan.folder, number)
        try:
            if not path.exists():
                files.write_model(self._plan.folder, record, re_evaluator.rebuild(record.candidate))
            again = re_evaluator.re_evaluate(path.read_bytes())
        except ParedownError as error:
            again = ()
            self._observer.message(f"trial {number} could not be re-evaluated: {error}")
        self._ledger.note_re_evaluated(number, again)

    def _model(self, number: int) -> bytes:
        """Returns a trial's ONNX file, built again if it is not on disk."""
        path = model_path(self._plan.folder, number)
        if path.exists() or self._plan.re_evaluator is None:
            return path.read_bytes()
        return self._plan.re_evaluator.rebuild(self._ledger.records[number].candidate)

    def _complemented(self, record: TrialRecord) -> TrialRecord:
        again = self._ledger.re_evaluated(record.number)
        explained = self._ledger.explained(record.number)
        if again is not None:
            record = replace(record, measurements=_overridden(record.measurements, again))
        return record if explained is None else replace(record, details={**record.details, **explained})


def _compared(results: StudyRecord) -> list[int]:
    """Returns the trials that the report compares: the picks, the front's best and runner-up, and the worst one."""
    if results.best is None:
        return []
    main = results.objectives[0]
    sign = 1.0 if main.direction == "maximize" else -1.0
    measured = [
        t for t in results.trials if t.state in ("complete", "infeasible") and main.column in t.values()
    ]
    worst = min(measured, key=lambda t: (sign * t.values()[main.column], t.number))
    picks = [pick.number for pick in results.picks]
    return list(dict.fromkeys([results.best, *picks, *results.front[:2], worst.number]))


def _overridden(first: Sequence[Measurement], again: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Returns all measurements; a first one whose column was measured again is renamed to `first_*`."""
    later = {m.column for m in again}
    kept = (replace(m, name=f"first_{m.name}") if m.column in later else m for m in first)
    return (*kept, *again)

"""Work on finished trials: times models again, evaluates the front on the test split, and explains what the report compares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from evaluators.base import Measurement
from search.record import study_files as files
from search.record.front import TIMES, possible_front
from search.record.results import BASELINE, StudyRecord, TrialRecord, baseline_record, model_name, model_path
from search.study.ledger import Ledger
from search.study.plan import Observer, ReEvaluator, StudyPlan
from search.study.race import Times, race, without_load
from search.study.verdict import judged
from spaces.errors import ParedownError

_MOST_RACES = 3  # a race may bring new models to the front, which then have to be timed with the others


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

    def baseline(self) -> TrialRecord:
        """Returns the uncompressed model as a trial, with the results of its re-evaluation."""
        return self._with_costs(baseline_record(self._plan.baseline))

    def re_evaluate(self, results: Callable[[], StudyRecord]) -> None:
        """Times whatever may be on the front again, and evaluates the front on the test split."""
        re_evaluator = self._plan.re_evaluator
        if re_evaluator is None or not results().front:
            return
        self._time_again(re_evaluator, results)
        waiting = [n for n in (BASELINE, *results().front) if self._ledger.re_evaluated(n) is None]
        waiting = list(dict.fromkeys(waiting))
        if waiting:
            self._observer.message(f"scoring the front on the test split: {len(waiting)} models")
        for number in waiting:
            again = self._attempt(number, self._model(number), re_evaluator.on_test)
            self._ledger.note_re_evaluated(number, again)
        files.write_baseline(results(), re_evaluator.dense)

    def explain(self, results: StudyRecord) -> None:
        """Explains the models that the report compares; explaining all would take longer than the trials."""
        waiting = [n for n in _compared(results) if self._ledger.explained(n) is None]
        if self._plan.explain is None or not waiting:
            return
        self._observer.message(f"comparing the layers of {len(waiting)} models with the float model's")
        for number in waiting:
            details: Mapping[str, object] = {}
            try:
                details = self._plan.explain(self._explainable(number))
            except (ParedownError, OSError) as error:
                self._observer.message(f"trial {number} could not be explained: {error}")
            self._ledger.note_explained(number, details)

    # -- timing ------------------------------------------------------------------------------------------------

    def _time_again(self, re_evaluator: ReEvaluator, results: Callable[[], StudyRecord]) -> None:
        contenders: list[int] = []
        for _ in range(_MOST_RACES):
            contenders = list(dict.fromkeys([*contenders, *self._contenders(results())]))
            if self._are_timed_together(contenders):
                return
            models = {n: self._model(n) for n in contenders}
            usable = [n for n in contenders if n == BASELINE or models[n] is not None]

            def timing(numbers: Sequence[int], n_rounds: int, offset: int) -> list[list[float]]:
                return re_evaluator.time_again([models[n] for n in numbers], n_rounds, offset)  # noqa: B023

            times = self._raced(usable, timing)
            self._forget_times(contenders)
            for number in contenders:
                self._note_timed(re_evaluator, number, models[number], times)

    def _contenders(self, results: StudyRecord) -> list[int]:
        """Returns the uncompressed model and every trial that may be on the front."""
        possible = possible_front(results.trials, self._plan.objectives, self._plan.constraints)
        return list(dict.fromkeys([BASELINE, *results.front, *possible]))

    def _are_timed_together(self, numbers: Sequence[int]) -> bool:
        """Whether models were all in the last race; where nothing is timed in turns, whether all were looked at."""
        stored = [self._ledger.timed(n) for n in numbers]
        if any(each is None for each in stored):
            return False
        n_rounds = [len(each[0]) for each in stored if each is not None]
        return all(n_rounds) or not any(n_rounds)

    def _raced(
        self, numbers: Sequence[int], timing: Callable[[Sequence[int], int, int], list[list[float]]]
    ) -> Times:
        """Returns times by round; empty if nothing is timed, or the models cannot be timed together."""
        try:
            if not timing(numbers[:1], 1, 0):
                return {}
            self._observer.message(
                f"timing {len(numbers)} models again, in turns, until their order is decided"
            )
            known = {r.number: r for r in (*self.records(), self.baseline())}
            return race([known[n] for n in numbers], self._plan.objectives, timing)
        except ParedownError as error:
            self._observer.message(f"the front could not be timed again: {error}")
            return {}

    def _note_timed(self, re_evaluator: ReEvaluator, number: int, model: bytes | None, times: Times) -> None:
        alike = without_load(times)
        # the uncompressed model's interval is that of the load, which all figures refer to
        own = (times if number == BASELINE else alike).get(number, [])
        own_ms, float_ms = ([t for t in row if t] for row in (own, times.get(BASELINE, [])))
        costs = self._attempt(number, model, lambda it: re_evaluator.timed(it, own_ms, float_ms))
        self._ledger.note_timed(number, alike.get(number, []), costs)

    def _forget_times(self, contenders: Sequence[int]) -> None:
        """Empties the rounds of earlier races: their times cannot be paired with those of the next one."""
        for number in (BASELINE, *(r.number for r in self._ledger.records)):
            stored = self._ledger.timed(number)
            if stored is not None and stored[0] and number not in contenders:
                self._ledger.note_timed(number, [], stored[1])

    # -- models ------------------------------------------------------------------------------------------------

    def _attempt(
        self, number: int, model: bytes | None, evaluate: Callable[[bytes | None], tuple[Measurement, ...]]
    ) -> tuple[Measurement, ...]:
        """Returns what `evaluate` says of a model; nothing, with a message, on an error."""
        if model is None and number != BASELINE:
            return ()
        try:
            return evaluate(model)
        except ParedownError as error:
            self._observer.message(f"{model_name(number)} could not be re-evaluated: {error}")
            return ()

    def _model(self, number: int) -> bytes | None:
        """Returns a trial's ONNX file, built again if it is not on disk; None for the uncompressed model, or on an error."""
        if number == BASELINE:
            return None
        path, re_evaluator = model_path(self._plan.folder, number), self._plan.re_evaluator
        assert re_evaluator is not None
        try:
            if not path.exists():
                record = self._ledger.records[number]
                files.write_model(self._plan.folder, record, re_evaluator.rebuild(record.candidate))
            return path.read_bytes()
        except ParedownError as error:
            self._observer.message(f"trial {number} could not be built again: {error}")
            return None

    def _explainable(self, number: int) -> bytes:
        """Returns a trial's ONNX file, built again if it is not on disk."""
        path = model_path(self._plan.folder, number)
        if path.exists() or self._plan.re_evaluator is None:
            return path.read_bytes()
        return self._plan.re_evaluator.rebuild(self._ledger.records[number].candidate)

    # -- records -----------------------------------------------------------------------------------------------

    def _complemented(self, record: TrialRecord) -> TrialRecord:
        explained = self._ledger.explained(record.number)
        if explained is not None:
            record = replace(record, details={**record.details, **explained})
        timed = self._with_costs(record)
        if timed is record or record.state not in ("complete", "infeasible"):
            return timed
        return judged(timed, self._plan.objectives, self._plan.constraints)

    def _with_costs(self, record: TrialRecord) -> TrialRecord:
        """Returns a record with the measurements on the test split and the new timings, if there are any."""
        again, timed = self._ledger.re_evaluated(record.number), self._ledger.timed(record.number)
        if again is None and timed is None:
            return record
        times, costs = timed or ([], ())
        measurements = _overridden(record.measurements, (*(again or ()), *costs))
        details = {**record.details, **({TIMES: times} if timed is not None else {})}
        return replace(record, measurements=measurements, details=details)


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
    front = [n for n in results.front if n != BASELINE]
    return [n for n in dict.fromkeys([results.best, *picks, *front[:2], worst.number]) if n != BASELINE]


def _overridden(first: Sequence[Measurement], again: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Returns all measurements; a first one whose column was measured again is renamed to `first_*`."""
    later = {m.column for m in again}
    kept = (replace(m, name=f"first_{m.name}") if m.column in later else m for m in first)
    return (*kept, *again)

"""The record of a study: an Optuna study with one writer, which survives being killed at any instant."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from evaluators.base import Measurement
from search.record.curve import curve_of
from search.record.results import Alias, Constraint, Objective, TrialRecord
from search.record.storage.dashboard import name_objectives, write_note
from search.record.storage.journal import lock_folder, open_study, record_of, write_record
from search.record.study_files import sweep
from search.record.trial_records import (
    measurement_from_json,
    measurement_to_json,
    record_from_json,
    record_to_json,
)
from search.samplers.acquisition.gain import Forecast, Forecasts
from search.samplers.candidates.context import WEIGHTS, Explains
from spaces.candidate import Candidate
from spaces.errors import StudyError

_BEGUN, _DEATHS = "begun", "deaths"  # attributes of trials that run in the study's own process
_MOST_DEATHS = 2  # of the process, after which a candidate is not tried again

_EXPLANATION = "proposals"  # key of a study attribute
_RE_EVALUATED, _EXPLAINED, _TIMED = (
    "confirmed:",
    "explained:",
    "timed:",
)  # keys of study attributes; the trial's number follows


class Ledger:
    """Opens or resumes the Optuna study of a folder. Use it as a context manager.

    A trial's record is written as one attribute before its values are passed to Optuna (`Study.tell`), so
    that at any instant a trial has either its whole record or none. Trials that were running when the process
    died are proposed again first.

    Args:
        name: `study.name`.
        folder: `study.dir`.
        storage: An Optuna storage URL, `memory`, or None for the journal file in `folder`.
        objectives: Axes of the front: Optuna's directions and values.
        constraints: Passed to Optuna with each trial, as its excess over the bound.
        identity: Section name to a JSON-able description; a study is resumed only if these are equal.

    Raises:
        StudyError: Another process writes the study, the folder cannot be written, or its study has another
            identity.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        storage: str | None,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        identity: Mapping[str, Any],
    ) -> None:
        self._folder, self._objectives, self._constraints = folder, tuple(objectives), tuple(constraints)
        self._held = ExitStack()
        self._held.callback(lock_folder(folder).release)
        try:
            sweep(folder)
            self._study = open_study(name, folder, storage, objectives, self._held)
            self._notes: dict[str, str] = dict(
                self._study.user_attrs
            )  # this is the only writer, so that they are read once
            self._check(identity)
            name_objectives(self._study, objectives)
            self.records: list[TrialRecord] = []
            self.aliases: list[Alias] = []
            self._recover()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets another process write the study."""
        self._held.close()

    # -- proposals -------------------------------------------------------------------------------------------

    @property
    def n_proposed(self) -> int:
        """Number of proposals in all sessions."""
        return len(self._study.get_trials(deepcopy=False))

    def use(self, sampler: optuna.samplers.BaseSampler) -> None:
        """Sets the sampler that proposes."""
        self._study.sampler = sampler

    def ask(self) -> Trial:
        """Starts a proposal."""
        return self._study.ask()

    def forecast(self, k: int) -> Forecast | None:
        """Returns the sampler's forecast of the gain of another `k` trials; None if it has none."""
        sampler = self._study.sampler
        return sampler.forecast(self._study, k) if isinstance(sampler, Forecasts) else None

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """Makes these parameters the next proposal."""
        self._study.enqueue_trial(dict(params))

    def begin(self, trial: Trial, candidate: Candidate) -> None:
        """Notes that a candidate runs in this process: if the process dies, the candidate may be the cause."""
        trial.set_user_attr(_BEGUN, json.dumps(dict(candidate)))

    # -- results of proposals --------------------------------------------------------------------------------

    def add(self, trial: Trial, record: TrialRecord) -> None:
        """Records a finished trial and passes it to the sampler."""
        trial.set_user_attr("trial", record.number)  # Optuna counts proposals, with duplicates
        if record.reason:
            trial.set_user_attr("reason", record.reason)
        write_record(trial, record_to_json(record))
        self.records.append(record)
        self._tell(trial, record)

    def alias(self, trial: Trial, alias: Alias) -> None:
        """Answers a proposal with the values of the trial that has the same file."""
        text = json.dumps({"candidate": dict(alias.candidate), "same_as": alias.same_as})
        trial.set_user_attr("alias", text)
        self._note_alias(alias)
        self._tell(trial, self.records[alias.same_as])

    def reject(self, trial: Trial) -> None:
        """Drops a proposal that cannot be built; it does not count as a trial."""
        self._study.tell(trial, state=TrialState.FAIL)

    def replace(self, trial: Trial, params: Mapping[str, Any]) -> None:
        """Drops a proposal that cannot be built, and makes these parameters the next proposal, in its place.

        The next proposal takes over what the sampler noted at this one: NSGA-II keeps a trial's generation there, and
        leaves a trial without it out of every population, as `enqueue_trial` makes them.
        """
        noted = self._study.get_trials(deepcopy=False)[trial.number].system_attrs
        self.reject(trial)
        attributes = {**noted, "fixed_params": dict(params)}
        self._study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=attributes))

    def _tell(self, trial: Trial, record: TrialRecord) -> None:
        if record.state == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
            return
        told = trial.constraints  # a process that was killed may have told some
        for constraint in self._constraints:
            estimate = record.estimate(constraint.column)
            if estimate is not None and constraint.name not in told:
                trial.set_constraint(constraint.name, constraint.excess(estimate[0]))
        values = record.values()
        # an infeasible trial may lack an objective, e.g. the latency on a device that does not take the file
        if record.state == "pruned" or not all(o.column in values for o in self._objectives):
            self._tell_pruned(trial, record)
            return
        if len(self._objectives) == 1:
            self._report_curve(trial, record)
        self._study.tell(trial, [values[o.column] for o in self._objectives])

    def _report_curve(self, trial: Trial, record: TrialRecord) -> None:
        """Reports the training curve as Optuna's intermediate values (with a single objective only)."""
        curve = curve_of(record.details)
        reported = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for epoch, value in enumerate(curve.values if curve else (), 1):
            if epoch not in reported:  # a process that was killed may have reported some epochs
                trial.report(value, epoch)

    def _tell_pruned(self, trial: Trial, record: TrialRecord) -> None:
        """Passes the estimates of a trial that lacks objectives to Optuna: as attribute `partial` and as an intermediate value.

        With several objectives Optuna supports neither pruning nor intermediate values: the trial is marked
        as failed.
        """
        estimates = [record.estimate(o.column) or (None, None) for o in self._objectives]
        values, errors = [value for value, _ in estimates], [error for _, error in estimates]
        partial = {"n": record.n_partial, "values": values, "errors": errors}
        trial.set_user_attr("partial", json.dumps(partial))
        if len(values) > 1:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        if curve_of(record.details) is not None:
            self._report_curve(trial, record)
        elif values[0] is not None:
            trial.report(values[0], record.n_partial)
        self._study.tell(trial, state=TrialState.PRUNED)

    def _note_alias(self, alias: Alias) -> None:
        repeated = alias.candidate == self.records[alias.same_as].candidate
        if not repeated and alias not in self.aliases:
            self.aliases.append(alias)

    # -- study attributes ------------------------------------------------------------------------------------

    @property
    def has_later_results(self) -> bool:
        """Whether any trial was re-evaluated, timed again or explained after it had ended."""
        return any(key.startswith((_RE_EVALUATED, _EXPLAINED, _TIMED)) for key in self._notes)

    def show(self, text: str) -> None:
        """Makes a text the study's note in optuna-dashboard."""
        write_note(self._study, text)

    def note(self, key: str, value: Any) -> None:
        """Stores a JSON-able value with the study."""
        text = json.dumps(value, default=float)
        self._study.set_user_attr(key, text)
        self._notes[key] = text

    def noted(self, key: str) -> Any:
        """Returns the value that `note` stored, or None."""
        text = self._notes.get(key)
        return None if text is None else json.loads(text)

    def note_re_evaluated(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Stores the measurements of a trial's re-evaluation."""
        self.note(f"{_RE_EVALUATED}{number}", [measurement_to_json(m) for m in measurements])

    def re_evaluated(self, number: int) -> tuple[Measurement, ...] | None:
        """Returns the measurements that `note_re_evaluated` stored, or None."""
        stored = self.noted(f"{_RE_EVALUATED}{number}")
        return None if stored is None else tuple(map(measurement_from_json, stored))

    def note_timed(self, number: int, times_ms: Sequence[float | None], costs: Sequence[Measurement]) -> None:
        """Stores the times by round of a model that was timed again, and the costs that follow."""
        self.note(f"{_TIMED}{number}", [list(times_ms), [measurement_to_json(m) for m in costs]])

    def timed(self, number: int) -> tuple[list[float | None], tuple[Measurement, ...]] | None:
        """Returns what `note_timed` stored, or None."""
        stored = self.noted(f"{_TIMED}{number}")
        return None if stored is None else (stored[0], tuple(map(measurement_from_json, stored[1])))

    def note_explained(self, number: int, details: Mapping[str, Any]) -> None:
        """Stores details that explain a trial, e.g. of its layers."""
        self.note(f"{_EXPLAINED}{number}", details)

    def explained(self, number: int) -> dict[str, Any] | None:
        """Returns the details that `note_explained` stored, or None."""
        stored = self.noted(f"{_EXPLAINED}{number}")
        return None if stored is None else dict(stored)

    def note_explanation(self) -> None:
        """Stores what the sampler says of its proposals, if it proposed anything in this session."""
        sampler = self._study.sampler
        if isinstance(sampler, Explains) and (explanation := sampler.explanation()):
            self.note(_EXPLANATION, explanation)

    @property
    def explanation(self) -> Mapping[str, Any]:
        """What a sampler said of its proposals; empty if none did."""
        return dict(self.noted(_EXPLANATION) or {})

    @property
    def knowledge_weights(self) -> list[float]:
        """By proposal, how probable the sampler took it that earlier studies resemble this one; empty without any."""
        attributes = [trial.user_attrs for trial in self._study.get_trials(deepcopy=False)]
        return [float(a[WEIGHTS]["knowledge"]) for a in attributes if WEIGHTS in a]

    # -- opening and resuming --------------------------------------------------------------------------------

    def _check(self, identity: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(identity))
        kept = self.noted("identity")
        if kept is None or not self.n_proposed:  # without trials nothing is to be compared
            self.note("identity", wanted)
            return
        different = [f"{path}: was {old}, is {new}" for path, old, new in _differences(kept, wanted, "")]
        if different:
            raise StudyError(
                f"{self._folder} holds a study with other settings:\n  " + "\n  ".join(different[:12])
                + "\nOld and new results could not be compared. Use another study.name, or restore the settings listed above."
            )  # fmt: skip

    def _recover(self) -> None:
        lost = []
        trials = self._study.get_trials(deepcopy=False)
        for frozen in trials:
            if (text := record_of(frozen)) is not None:
                self.records.append(record_from_json(text))
            elif frozen.state == TrialState.RUNNING and "alias" not in frozen.user_attrs:
                lost.append(frozen)
        self.records.sort(key=lambda record: record.number)
        for frozen in trials:
            self._finish(frozen)
        for frozen in lost:
            self._retry(frozen)

    def _retry(self, frozen: FrozenTrial) -> None:
        """Proposes a lost trial again, unless the process has died with its candidate too often."""
        begun = frozen.user_attrs.get(_BEGUN)
        deaths = int(frozen.user_attrs.get(_DEATHS, 0)) + (begun is not None)
        if deaths >= _MOST_DEATHS:
            reason = f"the study's process died {deaths} times while this candidate ran in it, so that it was set aside"
            candidate = Candidate(json.loads(begun or "{}"))
            trial = Trial(self._study, frozen._trial_id)
            self.add(trial, TrialRecord(len(self.records), "failed", reason, candidate))
            return
        self._study.tell(frozen.number, state=TrialState.FAIL)
        if frozen.params:
            self._study.enqueue_trial(frozen.params, user_attrs={_DEATHS: deaths} if deaths else None)

    def _finish(self, frozen: FrozenTrial) -> None:
        """Passes a result to Optuna that a killed process recorded but did not pass on; collects aliases."""
        if "alias" in frozen.user_attrs:
            data = json.loads(frozen.user_attrs["alias"])
            alias = Alias(Candidate(data["candidate"]), data["same_as"])
            self._note_alias(alias)
            record = self.records[alias.same_as]
        elif (text := record_of(frozen)) is not None and frozen.state == TrialState.RUNNING:
            record = record_from_json(text)
        else:
            return
        if frozen.state == TrialState.RUNNING:
            self._tell(Trial(self._study, frozen._trial_id), record)


def _differences(old: Any, new: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys((*old, *new))
        differences = (
            _differences(old.get(k, "absent"), new.get(k, "absent"), f"{path}.{k}" if path else k)
            for k in keys
        )
        return [difference for part in differences for difference in part]
    return [] if old == new else [(path, old, new)]

"""The record of a study: an Optuna study with one writer, which survives being killed at any instant."""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from evaluators.base import Measurement
from search.files import make_folder
from search.records import measurement_from_json, measurement_to_json, record_from_json, record_to_json
from search.results import Alias, Constraint, Objective, TrialRecord
from spaces.candidate import Candidate
from spaces.errors import StudyError

_LOG = logging.getLogger(__name__)


class _NoLock(JournalFileOpenLock):
    """The study folder's own lock, which the kernel frees when a process is killed, guards the journal."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class Ledger:
    """Opens or resumes the Optuna study of a folder. Use it as a context manager.

    A trial's record is written as one attribute before Optuna is told its values, so that at any instant a trial
    either has its whole record or none. What was running when the process died is proposed again first.

    Args:
        name: `study.name`.
        folder: `study.dir`.
        storage: An Optuna storage URL, `memory`, or None for the journal file in `folder`.
        objectives: Axes, for the directions and the values that the sampler is told.
        constraints: What the sampler is told besides.
        identity: What must be equal to resume: section name to a JSON-able description.

    Raises:
        StudyError: Another process writes the study, the folder cannot be written, or it holds a study of something else.
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
        self._handle = _lock(folder)
        try:
            self._study = _open(name, folder, storage, objectives)
            self._notes: dict[str, str] = dict(
                self._study.user_attrs
            )  # one writer: no need to read them again
            self._check(identity)
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
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    # -- proposals -------------------------------------------------------------------------------------------

    @property
    def n_proposed(self) -> int:
        """How many proposals there were, in all sessions."""
        return len(self._study.get_trials(deepcopy=False))

    def use(self, sampler: optuna.samplers.BaseSampler) -> None:
        """Sets the sampler that proposes."""
        self._study.sampler = sampler

    def ask(self) -> Trial:
        """Starts a proposal."""
        return self._study.ask()

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """Makes this the next proposal."""
        self._study.enqueue_trial(dict(params))

    # -- what came of them -----------------------------------------------------------------------------------

    def add(self, trial: Trial, record: TrialRecord) -> None:
        """Records a finished trial and tells the sampler."""
        trial.set_user_attr("record", record_to_json(record))
        self.records.append(record)
        self._tell(trial, record)

    def alias(self, trial: Trial, alias: Alias) -> None:
        """Answers a proposal from the trial that it is the same as."""
        text = json.dumps({"candidate": dict(alias.candidate), "same_as": alias.same_as})
        trial.set_user_attr("alias", text)
        self._note_alias(alias)
        self._tell(trial, self.records[alias.same_as])

    def reject(self, trial: Trial) -> None:
        """Drops a proposal that cannot be built; it is no trial."""
        self._study.tell(trial, state=TrialState.FAIL)

    def _tell(self, trial: Trial, record: TrialRecord) -> None:
        values = record.values()
        if record.state in ("failed", "pruned"):
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            return
        for constraint in self._constraints:
            trial.set_constraint(constraint.name, constraint.excess(values[constraint.column]))
        self._study.tell(trial, [values[o.column] for o in self._objectives], skip_if_finished=True)

    def _note_alias(self, alias: Alias) -> None:
        repeated = alias.candidate == self.records[alias.same_as].candidate
        if not repeated and alias not in self.aliases:
            self.aliases.append(alias)

    # -- what is known besides trials ------------------------------------------------------------------------

    def note(self, key: str, value: Any) -> None:
        """Keeps a JSON-able value with the study."""
        text = json.dumps(value)
        self._study.set_user_attr(key, text)
        self._notes[key] = text

    def noted(self, key: str) -> Any:
        """Returns what `note` kept, or None."""
        text = self._notes.get(key)
        return None if text is None else json.loads(text)

    def note_confirmed(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Keeps what was measured again for a model on the front."""
        self.note(f"confirmed:{number}", [measurement_to_json(m) for m in measurements])

    def confirmed(self, number: int) -> tuple[Measurement, ...] | None:
        """Returns what `note_confirmed` kept, or None."""
        found = self.noted(f"confirmed:{number}")
        return None if found is None else tuple(map(measurement_from_json, found))

    # -- opening and resuming --------------------------------------------------------------------------------

    def _check(self, identity: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(identity))
        kept = self.noted("identity")
        if kept is None:
            self.note("identity", wanted)
            return
        different = [f"{path}: was {old}, is {new}" for path, old, new in _differences(kept, wanted, "")]
        if different:
            raise StudyError(
                f"{self._folder} holds a study of something else:\n  " + "\n  ".join(different[:12])
                + "\nGive this one another study.name, or restore what differs."
            )  # fmt: skip

    def _recover(self) -> None:
        lost = []
        trials = self._study.get_trials(deepcopy=False)
        for frozen in trials:
            if "record" in frozen.user_attrs:
                self.records.append(record_from_json(frozen.user_attrs["record"]))
            elif frozen.state == TrialState.RUNNING and "alias" not in frozen.user_attrs:
                lost.append(frozen)
        self.records.sort(key=lambda record: record.number)
        for frozen in trials:
            self._finish(frozen)
        for frozen in lost:
            self._study.tell(frozen.number, state=TrialState.FAIL)
            if frozen.params:
                self.enqueue(frozen.params)

    def _finish(self, frozen: FrozenTrial) -> None:
        """Tells what the killed process could not tell any more."""
        if "alias" in frozen.user_attrs:
            data = json.loads(frozen.user_attrs["alias"])
            alias = Alias(Candidate(data["candidate"]), data["same_as"])
            self._note_alias(alias)
            record = self.records[alias.same_as]
        elif "record" in frozen.user_attrs and frozen.state == TrialState.RUNNING:
            record = record_from_json(frozen.user_attrs["record"])
        else:
            return
        if frozen.state == TrialState.RUNNING:
            self._tell(Trial(self._study, frozen._trial_id), record)


def _differences(old: Any, new: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys((*old, *new))
        found = (
            _differences(old.get(k, "absent"), new.get(k, "absent"), f"{path}.{k}" if path else k)
            for k in keys
        )
        return [difference for part in found for difference in part]
    return [] if old == new else [(path, old, new)]


def _lock(folder: Path) -> int | None:
    make_folder(folder)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StudyError(
            f"another process is writing the study in {folder}; wait for it, or use another study.name"
        ) from error
    return handle


def _open(name: str, folder: Path, storage: str | None, objectives: Sequence[Objective]) -> optuna.Study:
    directions = [o.direction for o in objectives]
    try:
        with _quiet():
            return optuna.create_study(
                study_name=name, storage=_storage(folder, storage), directions=directions, load_if_exists=True
            )
    except Exception as error:  # each kind of storage has exceptions of its own, SQLAlchemy's among them
        where = folder / "study.journal" if storage is None else f"study.storage={storage!r}"
        raise StudyError(f"cannot open the study in {where}: {error}") from error


def _storage(folder: Path, storage: str | None) -> BaseStorage | str:
    if storage == "memory":
        return InMemoryStorage()
    if storage is not None:
        return storage
    path = folder / "study.journal"
    _drop_torn_line(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path))))


def _drop_torn_line(path: Path) -> None:
    """Cuts off a last line that a killed process did not finish."""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _LOG.warning("%s: dropped an unfinished last line", path)
            os.truncate(path, whole)


@contextlib.contextmanager
def _quiet() -> Any:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)

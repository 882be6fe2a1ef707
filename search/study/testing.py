"""For tests of the search: a problem with a known front, and what every executor must do.

A new executor's test::

    class TestMyExecutor(ExecutorConformance):
        @pytest.fixture
        def executor(self):
            return MyExecutor()
"""

import ctypes
import faulthandler
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from evaluators.base import EarlyStoppingThreshold, Measurement
from evaluators.column import Column
from search.executors.base import Executor
from search.executors.serial import SerialExecutor
from search.record.results import Constraint, Objective, StudyRecord, TrialRecord
from search.study.plan import StudyPlan
from search.tracking.base import NoTracker
from search.trials.trial import TrialRequest, TrialResult
from spaces.candidate import Candidate
from spaces.digest import digest_of
from spaces.errors import EvaluationError, StageError
from spaces.space import Space
from spaces.space_config import read_space


@dataclass(frozen=True)
class AnalyticRunner:
    """Trials of a problem with a known answer: quality = x + y, size = x + 2 y^2, over whole numbers.

    Where y is 0 the front is every x; candidates with `z` differ in name only, and have the same file. A
    trial whose quality is below its early-stopping threshold is pruned.

    Attributes:
        log: Appends a line `<pid> <candidate digest>` for each trial that is really run; None keeps none.
        seconds: Seconds that a trial takes.
        fail_at: x at which a trial fails.
        die_at: x at which the whole process dies.
        refuse_at: x that cannot be built.
        loads_when: A worker has loaded the runner only when this file is there; None does not wait.
    """

    log: Path | None = None
    seconds: float = 0.0
    fail_at: int | None = None
    die_at: int | None = None
    refuse_at: int | None = None
    loads_when: Path | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the runner from a pickle, in a worker; waits for `loads_when`."""
        self.__dict__.update(state)
        if self.loads_when is not None:
            _wait_for(self.loads_when)

    def key(self, candidate: Candidate) -> str:
        """Equal for equal x and y. Raises StageError at `refuse_at`."""
        if candidate["x"] == self.refuse_at:
            raise StageError("this x cannot be built")
        return f"{candidate['x']},{candidate['y']}"

    def run(self, request: TrialRequest) -> TrialResult:
        """Measures x and y."""
        x, y = _number(request.candidate["x"]), _number(request.candidate["y"])
        if x == self.die_at:
            os._exit(9)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {request.candidate.digest}\n")
        time.sleep(self.seconds)
        if x == self.fail_at:
            return TrialResult(request.id, request.candidate, "failed", reason="this x fails")
        size = Measurement("size", x + 2 * y * y, "", "modelled", "board")
        threshold = request.threshold
        if threshold is not None and x + y < threshold.least:
            return TrialResult(
                request.id,
                request.candidate,
                "pruned",
                reason=f"quality is below {threshold.least:g}; {threshold.why}",
                measurements=(
                    Measurement("quality_partial", x + y, "", "measured"),
                    Measurement("quality_partial_error", 0.5, "", "measured"),
                    Measurement("quality_partial_images", 10, "images", "measured"),
                    size,
                ),
                artifact_digest=digest_of(x, y),
            )
        return TrialResult(
            request.id,
            request.candidate,
            "measured",
            measurements=(Measurement("quality", x + y, "", "measured"), size),
            seconds={"think": self.seconds},
            artifact_digest=digest_of(x, y),
        )


@dataclass(frozen=True)
class MisbehavingRunner:
    """Trials whose code does what it must not; x chooses what.

    Attributes:
        marks: A folder in which `die_once` leaves a mark.
    """

    marks: Path

    def key(self, candidate: Candidate) -> str:
        """The candidate's digest."""
        return candidate.digest

    def run(self, request: TrialRequest) -> TrialResult:
        """Returns, raises or dies as `MISBEHAVIOUR` says."""
        size = Measurement("size", 1.0, "", "modelled", "board")
        good = TrialResult(request.id, request.candidate, "measured", measurements=(size,))
        name = str(request.candidate["x"])
        if name == "crash":
            self.crash()
        if name == "die_once":
            self.die_once()
        return MISBEHAVIOUR[name](self, good) if name in MISBEHAVIOUR else good

    def answer(self, name: str) -> Any:
        """Returns, raises or dies as `MISBEHAVIOUR` says; `nothing` returns 7."""
        good = TrialResult(0, Candidate({}), "measured")
        return 7 if name == "nothing" else vars(MISBEHAVIOUR[name](self, good))

    def crash(self) -> None:
        """Crashes in native code."""
        faulthandler.disable()  # pytest's would print a traceback
        ctypes.string_at(0)

    def die_once(self) -> None:
        """Ends the process the first time."""
        mark = self.marks / "died"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _raise(error: BaseException) -> Any:
    raise error


class _Odd:
    """An object of a class that is no data."""


MISBEHAVIOUR: dict[str, Callable[[MisbehavingRunner, TrialResult], Any]] = {
    "a set": lambda runner, good: replace(good, details={"a": {1, 2}}),
    "a numpy.ndarray": lambda runner, good: replace(good, details={"a": [np.zeros(3)]}),
    "a function": lambda runner, good: replace(good, details={"a": lambda: 1}),
    "search.study.testing._Odd": lambda runner, good: replace(good, details={"a": {"b": _Odd()}}),
    "no valid Unicode": lambda runner, good: replace(good, details={"a": "\udcff"}),
    "must be a number": lambda runner, good: replace(
        good,
        measurements=(Measurement("size", "large", "", "modelled", "board"),),  # type: ignore[arg-type]
    ),
    "must be a Measurement": lambda runner, good: replace(good, measurements=(3.0,)),  # type: ignore[arg-type]
    "must return a TrialResult": lambda runner, good: {"outcome": "measured"},
    "SystemExit": lambda runner, good: _raise(SystemExit(0)),
    "GeneratorExit": lambda runner, good: _raise(GeneratorExit()),
    "MemoryError": lambda runner, good: _raise(MemoryError("2 PiB")),
}
"""What the code of a trial may do wrong, by a part of the reason that the trial gets."""


def _wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


def _number(value: Any) -> int:
    assert isinstance(value, int)
    return value


OBJECTIVES = (
    Objective(str(Column.of("quality")), "maximize"),
    Objective(str(Column.of("size", "board")), "minimize"),
)


def analytic_space() -> Space:
    """Returns 9 x 3 x 2 candidates: x in 0..8, y in 0..2, and z, which changes nothing."""
    return read_space({"x": {"int": [0, 8]}, "y": [0, 1, 2], "z": ["a", "b"]})


def analytic_plan(folder: Path, **changes: Any) -> StudyPlan:
    """Returns a plan of the analytic problem; `changes` replace its attributes."""
    defaults: dict[str, Any] = {
        "name": "analytic",
        "folder": folder,
        "n_trials": 12,
        "space": analytic_space(),
        "objectives": OBJECTIVES,
        "constraints": (Constraint("small", str(Column.of("size", "board")), "max", 10.0),),
        "devices": ("board",),
        "sampler_name": "random",
        "sampler": lambda n: optuna.samplers.RandomSampler(seed=n),
        "runner": AnalyticRunner(),
        "executor": SerialExecutor(),
        "tracker": NoTracker(),
        "identity": {"space": "analytic"},
        "baseline": (
            Measurement("quality", 5.0, "", "measured"),
            Measurement("size", 16.0, "", "modelled", "board"),
        ),
        "config": {"seed": 0},
        "command": "paredown",
    }
    return StudyPlan(**{**defaults, **changes})


class SilentObserver:
    """An observer that records messages and trial numbers."""

    def __init__(self, on_trial: Callable[[TrialRecord], None] | None = None) -> None:
        self.messages: list[str] = []
        self.numbers: list[int] = []
        self._on_trial = on_trial

    def begin(self, results: StudyRecord, plan: StudyPlan) -> None:
        """Does nothing."""

    def trial(self, record: TrialRecord, results: StudyRecord) -> None:
        """Records the trial's number."""
        self.numbers.append(record.number)
        if self._on_trial is not None:
            self._on_trial(record)

    def message(self, text: str) -> None:
        """Records the text."""
        self.messages.append(text)

    def end(self) -> None:
        """Does nothing."""


class ExecutorConformance:
    """What every executor must do. Inherit, and give the executor as a fixture.

    Attributes:
        kills: Whether a trial over its time limit is stopped at once, and a worker that dies is survived.
    """

    kills = True

    @pytest.fixture
    def executor(self) -> Executor:
        """Returns the executor under test, not started."""
        raise NotImplementedError

    @pytest.fixture
    def started(self, executor: Executor) -> Iterator[Callable[..., Executor]]:
        """Yields a function that starts the executor with a runner; it is closed afterwards."""

        def start(**settings: Any) -> Executor:
            executor.start(AnalyticRunner(**settings))
            return executor

        yield start
        executor.close()

    def test_every_trial_comes_back_once(self, started: Callable[..., Executor]) -> None:
        """Ids and values match what was submitted."""
        executor = started()
        for number in range(2 * executor.slots + 3):
            executor.submit(_request(number, x=number % 5))
        results = _drain(executor)
        assert sorted(r.id for r in results) == list(range(2 * executor.slots + 3))
        assert all(r.measurements[0].value == r.id % 5 + 1 for r in results)

    def test_nothing_submitted_returns_at_once(self, started: Callable[..., Executor]) -> None:
        """An idle executor does not wait."""
        assert started().next_result() is None

    def test_a_failed_trial_is_a_result(self, started: Callable[..., Executor]) -> None:
        """A trial's failure is returned, not raised."""
        executor = started(fail_at=3)
        executor.submit(_request(0, x=3))
        (result,) = _drain(executor)
        assert result.outcome == "failed"
        assert "this x fails" in result.reason

    def test_the_early_stopping_threshold_reaches_the_worker(self, started: Callable[..., Executor]) -> None:
        """A trial below its threshold is pruned wherever it runs."""
        executor = started()
        executor.submit(
            replace(_request(0, x=3), threshold=EarlyStoppingThreshold(4.5, "trial 7 reaches it"))
        )
        (result,) = _drain(executor)
        assert result.outcome == "pruned"
        assert "trial 7 reaches it" in result.reason

    def test_survives_the_death_of_a_worker(self, started: Callable[..., Executor]) -> None:
        """The trial fails with a reason; later ones run."""
        if not self.kills:
            pytest.skip("trials run in the study's own process")
        executor = started(die_at=3)
        executor.submit(_request(0, x=3))
        executor.submit(_request(1, x=4))
        results = {r.id: r for r in _drain(executor)}
        assert results[0].outcome == "failed"
        assert "WorkerError" in results[0].reason
        assert results[1].outcome == "measured"

    def test_a_late_trial_is_stopped(self, started: Callable[..., Executor]) -> None:
        """A trial over its time limit fails with a reason; later ones run."""
        if not self.kills:
            pytest.skip("a limit is checked between steps only")
        executor = started(seconds=60.0)
        executor.submit(_request(0, x=1, time_limit_s=0.5))
        (result,) = _drain(executor)
        assert result.outcome == "failed"
        assert "TimeLimitError" in result.reason
        assert "0.5 s" in result.reason

    def test_the_start_of_a_worker_does_not_count(
        self, started: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However long it takes until a trial runs, queued or while its worker starts, it has its whole time."""
        if not self.kills:
            pytest.skip("a limit is checked between steps only")
        executor = started(loads_when=tmp_path / "go")
        numbers = range(executor.slots + 1)  # the last one is queued
        for number in numbers:
            executor.submit(_request(number, x=1, time_limit_s=100.0))
        _pass_time(monkeypatch, 1000.0)
        assert executor.next_result(timeout_s=0.5) is None
        (tmp_path / "go").touch()
        assert [r.outcome for r in _drain(executor)] == ["measured" for _ in numbers]

    def test_the_limit_is_counted_from_when_the_trial_runs(
        self, started: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before its time is up a trial is left alone, after that it is stopped."""
        if not self.kills:
            pytest.skip("a limit is checked between steps only")
        executor = started(seconds=600.0, log=tmp_path / "runs")
        executor.submit(_request(0, x=1, time_limit_s=1000.0))
        _wait_for(tmp_path / "runs")
        assert executor.next_result(timeout_s=0.5) is None  # the executor learns that the trial runs
        _pass_time(monkeypatch, 900.0)
        assert executor.next_result(timeout_s=0) is None
        _pass_time(monkeypatch, 101.0)
        result = executor.next_result(timeout_s=0)
        assert result is not None
        assert "TimeLimitError" in result.reason
        assert 1000 < result.wall_s < 1100

    def test_what_is_no_data_fails_the_trial(self, executor: Executor, tmp_path: Path) -> None:
        """A wrong type, an exit: the trial fails with the reason, and the others run."""
        names = [*MISBEHAVIOUR, "nothing"]
        executor.start(MisbehavingRunner(tmp_path))
        try:
            for number, x in enumerate(names):
                executor.submit(TrialRequest(number, Candidate({"x": x})))
            results = {names[r.id]: r for r in _drain(executor)}
        finally:
            executor.close()
        assert results.pop("nothing").outcome == "measured"
        assert [r.outcome for r in results.values()] == ["failed"] * len(MISBEHAVIOUR)
        assert [name for name, r in results.items() if name not in r.reason] == []

    def test_other_methods_are_called(self, executor: Executor, tmp_path: Path) -> None:
        """Values come back as plain data, also while trials are queued; errors are raised."""
        executor.start(MisbehavingRunner(tmp_path))
        try:
            for number in range(executor.slots + 1):
                executor.submit(TrialRequest(number, Candidate({"x": "nothing"})))
            assert executor.call("answer", "nothing") == 7
            assert executor.call("key", Candidate({"x": 1})) == Candidate({"x": 1}).digest
            for name in ("a set", "SystemExit"):
                with pytest.raises(EvaluationError, match=name):
                    executor.call("answer", name)
            assert len(_drain(executor)) == executor.slots + 1
        finally:
            executor.close()

    def test_after_its_end_a_call_is_an_error(self, executor: Executor, tmp_path: Path) -> None:
        """An interrupted study closes the executor first; what would need a worker afterwards goes on without."""
        if not self.kills:
            pytest.skip("there are no workers")
        executor.start(MisbehavingRunner(tmp_path))
        executor.close()
        with pytest.raises(EvaluationError, match="closed"):
            executor.call("answer", "nothing")

    def test_a_worker_that_dies_once_costs_nothing(self, executor: Executor, tmp_path: Path) -> None:
        """Another process may have been the cause: the trial, or the call, is tried once more."""
        if not self.kills:
            pytest.skip("trials run in the study's own process")
        executor.start(MisbehavingRunner(tmp_path))
        try:
            executor.submit(TrialRequest(0, Candidate({"x": "die_once"})))
            assert [r.outcome for r in _drain(executor)] == ["measured"]
            (tmp_path / "died").unlink()
            assert executor.call("die_once") is None
        finally:
            executor.close()

    def test_a_crash_in_native_code_costs_one_trial(self, executor: Executor, tmp_path: Path) -> None:
        """The reason names the signal; a call raises it."""
        if not self.kills:
            pytest.skip("trials run in the study's own process")
        executor.start(MisbehavingRunner(tmp_path))
        try:
            for number, x in enumerate(("crash", "nothing")):
                executor.submit(TrialRequest(number, Candidate({"x": x})))
            results = {r.id: r for r in _drain(executor)}
            assert "WorkerError" in results[0].reason
            assert results[1].outcome == "measured"
            with pytest.raises(EvaluationError, match="2 workers died"):
                executor.call("crash")
        finally:
            executor.close()

    def test_gives_up_waiting_in_time(self, started: Callable[..., Executor]) -> None:
        """`timeout_s` is honoured while a trial runs."""
        if not self.kills:
            pytest.skip("a serial executor returns when its trial does")
        executor = started(seconds=60.0)
        executor.submit(_request(0, x=1))
        assert executor.next_result(timeout_s=0.2) is None


def _pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Sets `time.monotonic` of this process forward; operating-system waits still use the real clock."""
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)


def _request(number: int, x: int, time_limit_s: float | None = None) -> TrialRequest:
    return TrialRequest(number, Candidate({"x": x, "y": 1, "z": "a"}), time_limit_s=time_limit_s)


def _drain(executor: Executor) -> Sequence[TrialResult]:
    results = []
    while (result := executor.next_result()) is not None:
        results.append(result)
    return results

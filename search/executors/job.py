"""What an executor gives to a worker, and what the worker answers."""

import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from search.trials.plain_data import plain
from search.trials.run_trial import described, result_from_data, result_to_data, run_trial
from search.trials.trial import TrialRequest, TrialResult, TrialRunner
from spaces import errors
from spaces.errors import EvaluationError, ParedownError

BEGAN = b""
"""A worker's first message of a job: it runs now."""


@dataclass
class Job:
    """A trial, or a call of another method of the runner.

    Attributes:
        method: Name of the runner's method; `run` for a trial.
        args: Its arguments; for a trial its request.
        time_limit_s: Most seconds that it may run; None for no limit.
        tries: Deaths of workers after which it is not tried again.
        began: `time.monotonic()` of the worker's report that it runs; None while it is queued or its worker starts.
        deaths: Workers that died while they ran it.
        lost_nodes: Machines that were lost while it ran there.
        answer: The worker's answer to a call; None while there is none.
    """

    method: str
    args: tuple[Any, ...]
    time_limit_s: float | None = None
    tries: int = 2
    began: float | None = field(default=None, init=False)
    deaths: int = field(default=0, init=False)
    lost_nodes: int = field(default=0, init=False)
    answer: "Answer | None" = field(default=None, init=False)

    @classmethod
    def trial(cls, request: TrialRequest) -> "Job":
        """Returns the job of a trial."""
        return cls("run", (request,), request.time_limit_s)

    @property
    def request(self) -> TrialRequest | None:
        """The request of a trial; None for another call."""
        return self.args[0] if self.method == "run" else None

    def expires(self) -> float | None:
        """Returns the `time.monotonic()` at which its limit ends; None without a limit or before it runs."""
        return None if self.time_limit_s is None or self.began is None else self.began + self.time_limit_s

    def is_late(self) -> bool:
        """Returns whether it has exceeded its time limit."""
        expires = self.expires()
        return expires is not None and expires <= time.monotonic()

    def ran_s(self) -> float:
        """Returns the seconds that it has run."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def failed(self, reason: str) -> TrialResult:
        """Returns the result of a trial whose worker could not return one."""
        assert self.request is not None
        return TrialResult(
            self.request.id, self.request.candidate, "failed", reason=reason, wall_s=self.ran_s()
        )


@dataclass(frozen=True)
class Answer:
    """A worker's answer.

    Attributes:
        value: Plain data.
        error: Name of the error's class, if there was one.
        text: Its text.
    """

    value: Any = None
    error: str = ""
    text: str = ""

    def result(self) -> Any:
        """Returns the value.

        Raises:
            ParedownError: The method raised one; an `EvaluationError` if it raised something else.
        """
        if not self.error:
            return self.value
        kind = getattr(errors, self.error, None)
        if isinstance(kind, type) and issubclass(kind, ParedownError):
            raise kind(self.text)
        raise EvaluationError(f"{self.error}: {self.text}")


def work(runner: TrialRunner, job: Job) -> Iterator[bytes]:
    """Does a job, in a worker. Yields `BEGAN`, then the answer for `answer_of`."""
    yield BEGAN
    if job.request is not None:
        yield pickle.dumps(Answer(result_to_data(run_trial(runner, job.request))).__dict__)
        return
    yield pickle.dumps(call(runner, job.method, job.args).__dict__)


def call(runner: TrialRunner, method: str, args: tuple[Any, ...]) -> Answer:
    """Calls a method of the runner; returns its value as plain data, or its error."""
    try:
        return Answer(plain(getattr(runner, method)(*args), f"the value of {method}"))
    except ParedownError as error:
        return Answer(error=type(error).__name__, text=str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Answer(error="EvaluationError", text=described(error))


def answer_of(message: bytes) -> Answer:
    """Reads a worker's answer. It holds plain data only: reading it runs no code.

    Raises:
        pickle.UnpicklingError: It names a class.
    """
    return Answer(**_PlainUnpickler(BytesIO(message)).load())


def result_of(job: Job, answer: Answer) -> TrialResult:
    """Returns the result of a trial from its worker's answer."""
    assert job.request is not None
    return result_from_data(answer.value, job.request.candidate)


class _PlainUnpickler(pickle.Unpickler):
    """Reads Python's own types only."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a worker sent an object of {module}.{name}")

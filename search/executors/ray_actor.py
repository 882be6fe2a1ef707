"""A worker of the Ray executor: the actor, and what the study's process holds of it."""

import pickle
import sys
from typing import Any

from search.executors.job import BEGAN, Job, work
from search.executors.pool import NodeLostError, StartFailedError, Worker, WorkerDiedError
from search.executors.ray_cluster.causes import cause_of, is_lost_node, is_of_start, is_unreachable
from search.trials.trial import TrialRunner


class WorkerActor:
    """Runs in a process of the cluster; does one call at a time, in order.

    Args:
        runner: Reference to the pickled runner, in a list: otherwise Ray would load it before the import path is set.
        import_path: Folders to import from, besides those that the process has.
    """

    def __init__(self, runner: list[Any], import_path: list[str]) -> None:
        import ray

        sys.path += [folder for folder in import_path if folder not in sys.path]
        # pickled by our study. As bytes, not as an object: arrays of an object would be read-only views of the object store
        self._runner: TrialRunner = pickle.loads(ray.get(runner[0]))  # noqa: S301

    def begin(self) -> bytes:
        """Returns `BEGAN`: calls are done in order, so that the job whose call follows runs now."""
        return BEGAN

    def do(self, job: Job) -> bytes:
        """Does a job; returns the answer."""
        *_, answer = work(self._runner, job)
        return answer


class ActorWorker(Worker):
    """An actor, with the answers that are expected of it.

    Args:
        ray: The module, connected.
        actor: The handle of a `WorkerActor`.
    """

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._expected: list[Any] = []
        self._unreachable = False

    @property
    def next(self) -> Any:
        """Reference to its next message."""
        return self._expected[0]

    def send(self, job: Job) -> None:
        """Gives it a job: two calls.

        The first job of a new actor is sent with `receive`, once the actor is known to have loaded the runner: if both calls
        were sent and the job ended the process at once, the answer to the first would be lost with it.
        """
        self._expected = [self._actor.begin.remote()]
        if self.has_begun:
            self._expected.append(self._actor.do.remote(job))

    def receive(self) -> bytes | None:
        """Returns its next message; None while the connection to it is lost, until the cluster knows what became of it."""
        try:
            message: bytes = self._ray.get(self._expected.pop(0))
        except Exception as error:  # of Ray, or what the actor could not be started for
            if is_unreachable(error):
                self._unreachable = True
                self._expected = [
                    self._actor.begin.remote()
                ]  # fails, too, after a second or two: with the cause, once that is known
                return None
            raise _kind_of(error)(cause_of(error)) from error
        if self._unreachable:  # it is back, but what it was doing is lost
            raise NodeLostError("the connection to the worker was lost")
        if message == BEGAN and not self.has_begun:
            self._expected.append(self._actor.do.remote(self.job))
        return message

    def kill(self) -> None:
        """Ends the actor at once."""
        self._expected.clear()
        self._ray.kill(self._actor)


def _kind_of(error: Exception) -> type[Exception]:
    if is_lost_node(error):
        return NodeLostError
    return StartFailedError if is_of_start(error) else WorkerDiedError

"""The evaluation of one artifact: collects measurements, details, and the seconds of each step."""

import time
from dataclasses import replace
from typing import Any

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement
from search.trials.plain_data import plain_evaluation
from spaces.errors import EvaluationError, TimeLimitError
from spaces.stages.artifact import Artifact

_SHORTEST_WAIT_S = 0.1  # shorter waits are not noted


class Clock:
    """Records the seconds of each step, and stops a trial between steps once its time limit has passed."""

    def __init__(self, limit_s: float | None) -> None:
        self._began = time.perf_counter()
        self._limit_s = limit_s
        self.seconds: dict[str, float] = {}

    def elapsed_s(self) -> float:
        """Returns the seconds since the trial began."""
        return time.perf_counter() - self._began

    def note(self, step: str, seconds: float) -> None:
        """Adds to the seconds of a step.

        Raises:
            TimeLimitError: The trial has exceeded its time limit.
        """
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        self.check(f"after step {step!r}")

    def waited(self, seconds: float) -> None:
        """Adds seconds in which the trial waited for the machine; they do not count towards its time limit."""
        if seconds >= _SHORTEST_WAIT_S:
            self.seconds["waiting"] = self.seconds.get("waiting", 0.0) + seconds
            self._limit_s = None if self._limit_s is None else self._limit_s + seconds

    def check(self, where: str) -> None:
        """Stops the trial if it has exceeded its time limit.

        Args:
            where: The point that the trial has reached, for the message: `after step 'quantize'`.

        Raises:
            TimeLimitError: The trial has exceeded its time limit.
        """
        if self._limit_s is not None and self.elapsed_s() > self._limit_s:
            raise TimeLimitError(
                f"the trial took {self.elapsed_s():.1f} s, more than study.trial_time_limit of {self._limit_s:g} s; "
                f"it was stopped {where}"
            )


class Judging:
    """Runs evaluators on one artifact; collects measurements, details, and why it was pruned, if it was."""

    def __init__(self, artifact: Artifact, context: EvaluationContext, clock: Clock | None = None) -> None:
        self.artifact, self.context = artifact, context
        self._clock = clock
        self.measurements: list[Measurement] = []
        self.details: dict[str, Any] = {}
        self.pruned = ""

    def run(self, evaluator: Evaluator, known: Evaluation | None) -> Evaluation:
        """Runs one evaluator, or takes its result from `known`; returns the result."""
        began = time.perf_counter()
        evaluation = known
        if evaluation is None:
            so_far = (*self.context.measured, *self.measurements)
            evaluation = _evaluated(evaluator, self.artifact, replace(self.context, measured=so_far))
        self.measurements += evaluation.measurements
        because = {**self.details.get("because", {}), **evaluation.details.get("because", {})}
        self.details |= {**evaluation.details, **({"because": because} if because else {})}
        self.pruned = self.pruned or evaluation.pruned
        if self._clock is not None:
            self._clock.note(evaluator.name, time.perf_counter() - began)
        return evaluation


def _evaluated(evaluator: Evaluator, artifact: Artifact, context: EvaluationContext) -> Evaluation:
    """Returns an evaluator's result as plain data; code of a user may exit, or return anything."""
    try:
        evaluation = evaluator.evaluate(artifact, context)
    except SystemExit as error:
        raise EvaluationError(f"evaluator {evaluator.name} called sys.exit({error.code!r})") from error
    return plain_evaluation(evaluation, evaluator.name)

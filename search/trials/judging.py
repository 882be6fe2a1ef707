"""What is noted while one artifact is judged: what the evaluators say, and the seconds of each step."""

import time
from dataclasses import replace
from typing import Any

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement
from spaces.errors import TimeLimitError
from spaces.stages.artifact import Artifact


class Clock:
    """Notes the seconds of each step, and stops a trial between two steps once its time is up."""

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
            TimeLimitError: The trial's time is up.
        """
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        self.check(f"after step {step!r}")

    def check(self, where: str) -> None:
        """Stops the trial if its time is up.

        Args:
            where: What was done last, in words.

        Raises:
            TimeLimitError: The trial's time is up.
        """
        if self._limit_s is not None and self.elapsed_s() > self._limit_s:
            raise TimeLimitError(
                f"the trial took {self.elapsed_s():.1f} s, more than study.trial_time_limit of {self._limit_s:g} s; "
                f"it was stopped {where}"
            )


class Judging:
    """What evaluators have said of one artifact so far."""

    def __init__(self, artifact: Artifact, context: EvaluationContext, clock: Clock | None = None) -> None:
        self.artifact, self.context = artifact, context
        self._clock = clock
        self.measurements: list[Measurement] = []
        self.details: dict[str, Any] = {}
        self.pruned = ""

    def run(self, evaluator: Evaluator, known: Evaluation | None) -> Evaluation:
        """Asks one evaluator, or takes what it is known to say."""
        began = time.perf_counter()
        if known is None:
            so_far = (*self.context.measured, *self.measurements)
            known = evaluator.evaluate(self.artifact, replace(self.context, measured=so_far))
        self.measurements += known.measurements
        because = {**self.details.get("because", {}), **known.details.get("because", {})}
        self.details |= {**known.details, **({"because": because} if because else {})}
        self.pruned = self.pruned or known.pruned
        if self._clock is not None:
            self._clock.note(evaluator.name, time.perf_counter() - began)
        return known

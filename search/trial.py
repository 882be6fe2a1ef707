"""One trial: build a candidate for real and measure it. A pure function of (candidate, seed, inputs)."""

import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from evaluators.base import EvaluationContext, Evaluator, Measurement
from search.executors.machine_lock import MachineLock
from spaces.artifact import Artifact
from spaces.candidate import Candidate
from spaces.errors import ParedownError, TimeLimitError
from spaces.pipeline import Pipeline, canonical_key
from spaces.space import Space
from spaces.stage import StageContext


@dataclass(frozen=True)
class TrialRequest:
    """What a worker needs besides the runner.

    Attributes:
        id: The study's own number of the proposal.
        candidate: What to build.
        known: Digests of files that trials have measured already, with their trial numbers.
        time_limit_s: The most seconds it may take; None for no limit.
    """

    id: int
    candidate: Candidate
    known: Mapping[str, int] = field(default_factory=dict)
    time_limit_s: float | None = None


@dataclass(frozen=True)
class TrialResult:
    """What a worker returns.

    Attributes:
        id: The request's.
        candidate: The request's.
        outcome: `measured`, `failed`, or `duplicate` (the file equals one that was measured).
        reason: Why it failed.
        same_as: For a duplicate, the trial number.
        measurements: What the evaluators said.
        details: What explains it.
        seconds: Seconds by step.
        wall_s: Seconds in all.
        artifact_digest: Digest of the built file.
        model: The built ONNX file.
    """

    id: int
    candidate: Candidate
    outcome: Literal["measured", "failed", "duplicate"]
    reason: str = ""
    same_as: int | None = None
    measurements: tuple[Measurement, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    artifact_digest: str | None = None
    model: bytes | None = None


class TrialRunner(Protocol):
    """Runs trials. Picklable: executors ship it to workers once."""

    def key(self, candidate: Candidate) -> str:
        """Returns a key that is equal for candidates known to be the same; cheap.

        Raises:
            StageError: The candidate cannot be built, whatever the data.
        """

    def run(self, request: TrialRequest) -> TrialResult:
        """Runs one trial; never raises for what goes wrong inside it."""


@dataclass
class CompressionRunner:
    """Builds candidates through a pipeline and judges them with evaluators.

    Attributes:
        space: The space, to read candidates with.
        start: The artifact that the first stage gets.
        pipeline: The stages that have knobs, and those after them.
        stage_context: Calibration data, cache and seed.
        context: Validation data, metric, reference and devices.
        evaluators: In the order in which they are run.
        lock: Keeps timed evaluators alone on the machine.
    """

    space: Space
    start: Artifact
    pipeline: Pipeline
    stage_context: StageContext
    context: EvaluationContext
    evaluators: Sequence[Evaluator]
    lock: MachineLock

    def key(self, candidate: Candidate) -> str:
        """Returns the digest of the candidate's canonical values."""
        return canonical_key(self._canonical(candidate))

    def run(self, request: TrialRequest) -> TrialResult:
        """Builds and measures one candidate."""
        clock = _Clock(request.time_limit_s)
        result = TrialResult(request.id, request.candidate, "failed")
        try:
            result = self._run(request, clock)
        except ParedownError as error:
            result = replace(result, reason=f"{type(error).__name__}: {error}")
        except Exception as error:  # a stage's bug must not stop the study; the trace says where it is
            trace = traceback.format_exc(limit=-4)
            result = replace(result, reason=f"{type(error).__name__}: {error}", details={"traceback": trace})
        return replace(result, seconds=clock.seconds, wall_s=clock.elapsed_s())

    def _run(self, request: TrialRequest, clock: "_Clock") -> TrialResult:
        with self.lock.shared():
            artifact = self.build(request.candidate, clock)
            result = TrialResult(request.id, request.candidate, "measured", artifact_digest=artifact.digest)
            if artifact.digest in request.known:
                return replace(result, outcome="duplicate", same_as=request.known[artifact.digest])
            early = self.judge(artifact, self.context, [e for e in self.evaluators if not e.exclusive], clock)
        with self.lock.exclusive():
            context = replace(self.context, measured=early[0])
            late = self.judge(artifact, context, [e for e in self.evaluators if e.exclusive], clock)
        return replace(
            result,
            measurements=(*early[0], *late[0]),
            details={**early[1], **late[1]},
            model=artifact.onnx_bytes,
        )

    def build(self, candidate: Candidate, clock: "_Clock | None" = None) -> Artifact:
        """Returns the candidate's artifact."""
        after_step = clock.note if clock is not None else None
        return self.pipeline.run(self.start, self._canonical(candidate), self.stage_context, after_step)

    def judge(
        self,
        artifact: Artifact,
        context: EvaluationContext,
        evaluators: Sequence[Evaluator],
        clock: "_Clock | None" = None,
    ) -> tuple[tuple[Measurement, ...], dict[str, Any]]:
        """Runs evaluators on one artifact; returns their measurements and details."""
        measurements: list[Measurement] = []
        details: dict[str, Any] = {}
        for evaluator in evaluators:
            began = time.perf_counter()
            known = (*context.measured, *measurements)
            evaluation = evaluator.evaluate(artifact, replace(context, measured=known))
            measurements += evaluation.measurements
            details |= evaluation.details
            if clock is not None:
                clock.note(evaluator.name, time.perf_counter() - began)
        return tuple(measurements), details

    def alone(self) -> AbstractContextManager[None]:
        """Holds the machine for something that is timed."""
        return self.lock.exclusive()

    def _canonical(self, candidate: Candidate) -> dict[str, dict[str, Any]]:
        return self.pipeline.canonical(self.start, self.space, candidate, self.stage_context)


class _Clock:
    """Notes the seconds of each step, and stops a trial between two steps once its time is up."""

    def __init__(self, limit_s: float | None) -> None:
        self._began = time.perf_counter()
        self._limit_s = limit_s
        self.seconds: dict[str, float] = {}

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began

    def note(self, step: str, seconds: float) -> None:
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        if self._limit_s is not None and self.elapsed_s() > self._limit_s:
            raise TimeLimitError(
                f"the trial took {self.elapsed_s():.1f} s, more than study.trial_time_limit of {self._limit_s:g} s; "
                f"it was stopped after step {step!r}"
            )

"""One trial: builds a candidate and measures it. A pure function of (candidate, seed, inputs)."""

import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

from evaluators.base import EarlyStoppingThreshold, Evaluation, EvaluationContext, Evaluator, Measurement
from evaluators.sizes import sizes_of
from search.record.curve import DETAIL
from search.record.results import Constraint
from search.trials.curves import CurveWatch, Pruning
from search.trials.judging import Clock, Judging
from search.trials.machine_lock import Hold, MachineLock
from spaces.candidate import Candidate, StageValue
from spaces.errors import ParedownError, StopTrialError
from spaces.space import Space
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline, canonical_key
from spaces.stages.stage import StageContext, Watch

NEAR = 0.1  # of a limit: closer than that, a draft's costs do not tell on which side the file is
TIMED_BESIDE = "timed_beside"
"""Detail of a trial that was timed while other studies computed: whose computations."""


@dataclass(frozen=True)
class TrialRequest:
    """One trial to run: what an executor hands to a worker.

    Attributes:
        id: The study's own number of the proposal.
        candidate: The candidate to build.
        known: Digests of files that trials have measured already, with their trial numbers.
        time_limit_s: Most seconds that the trial may take; None for no limit.
        threshold: The metric value below which the trial may stop early; None evaluates it to the end.
        pruning: Compares its training with earlier trials and may stop it; None trains to the end.
    """

    id: int
    candidate: Candidate
    known: Mapping[str, int] = field(default_factory=dict)
    time_limit_s: float | None = None
    threshold: EarlyStoppingThreshold | None = None
    pruning: Pruning | None = None


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial, as a worker returns it.

    Attributes:
        id: The request's.
        candidate: The request's.
        outcome: `measured`, `failed`, `duplicate` (the file equals one that was measured), or `pruned`
            (stopped before the end of its training or evaluation, because with high confidence it is below a
            threshold or earlier trials).
        reason: Why it failed or was pruned.
        same_as: For a duplicate, the number of the trial with the same file.
        measurements: The evaluators' measurements.
        details: The evaluators' details, JSON-able, by evaluator or topic.
        seconds: Seconds by step.
        wall_s: Seconds in all.
        artifact_digest: Digest of the built file.
        model: The built ONNX file.
    """

    id: int
    candidate: Candidate
    outcome: Literal["measured", "failed", "duplicate", "pruned"]
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
        """Returns a key that is equal for candidates known to yield the same file; cheap.

        Raises:
            StageError: The candidate cannot be built, whatever the data.
        """

    def run(self, request: TrialRequest) -> TrialResult:
        """Runs one trial; an error inside the trial is returned as outcome `failed`, not raised."""


@dataclass
class CompressionRunner:
    """Builds candidates through a pipeline and evaluates them.

    Attributes:
        space: The search space, to decode candidates with.
        start: The artifact that the first stage gets: the torch network, if that stage takes one, or the float ONNX model.
        pipeline: The stages that have knobs, and those after them.
        stage_context: Calibration data, cache and seed.
        context: Validation data, metric, reference and devices.
        evaluators: In the order in which they are run.
        lock: Keeps computations from running during timed evaluations.
        limits: The study's constraints. Those that follow from a file's structure are checked before anything is trained.
    """

    space: Space
    start: Artifact
    pipeline: Pipeline
    stage_context: StageContext
    context: EvaluationContext
    evaluators: Sequence[Evaluator]
    lock: MachineLock
    limits: Sequence[Constraint] = ()
    _memo: dict[tuple[str, str], Evaluation] = field(default_factory=dict, init=False, repr=False)
    _far: dict[str, bool] = field(default_factory=dict, init=False, repr=False)  # by key of a structure

    @property
    def dense(self) -> Artifact:
        """The float ONNX model that candidates are compared with."""
        return self.context.reference.artifact

    def key(self, candidate: Candidate) -> str:
        """Returns the digest of the candidate's canonical values."""
        return canonical_key(self._canonical(candidate))

    def keys(self, candidate: Candidate) -> tuple[str, str]:
        """Returns `key`, and a digest of the file's structure: files with equal ones differ in tensor values only.

        Raises:
            StageError: The candidate cannot be built.
        """
        values = self._canonical(candidate)
        return canonical_key(values), self._structure_key(values)

    def training(self, candidate: Candidate) -> tuple[str, tuple[str, ...]]:
        """Returns a key that is equal for candidates with the same values up to the last training, and the steps up to that.

        It is asked of thousands of candidates, so nothing is built or counted for it: values without an effect count as well.
        """
        return self.pipeline.training(self.pipeline.values(self.space, candidate))

    def run(self, request: TrialRequest) -> TrialResult:
        """Builds and measures one candidate."""
        clock = Clock(request.time_limit_s)
        watch = CurveWatch(self.context, request.pruning, clock.check)
        result = TrialResult(request.id, request.candidate, "failed")
        try:
            result = self._run(request, clock, watch)
        except StopTrialError as error:
            result = replace(result, outcome="pruned", reason=str(error), measurements=watch.estimates())
        except ParedownError as error:
            result = replace(result, reason=f"{type(error).__name__}: {error}")
        except (
            Exception,
            SystemExit,
        ) as error:  # a bug in a stage must not stop the study; the traceback locates it
            trace = traceback.format_exc(limit=-4)
            result = replace(result, reason=f"{type(error).__name__}: {error}", details={"traceback": trace})
        details = {**result.details, DETAIL: watch.curve.to_detail()} if watch.curve else result.details
        return replace(result, details=details, seconds=clock.seconds, wall_s=clock.elapsed_s())

    def _run(self, request: TrialRequest, clock: Clock, watch: CurveWatch) -> TrialResult:
        with self.lock.shared() as hold:
            clock.waited(hold.waited_s)
            began = time.perf_counter()
            values = self._canonical(request.candidate)
            clock.note("prepare", time.perf_counter() - began)
            excluded = self._excluded(values, clock)
            if excluded:
                return TrialResult(request.id, request.candidate, "measured", measurements=excluded)
            artifact = self._build(values, clock, watch)
            result = TrialResult(request.id, request.candidate, "measured", artifact_digest=artifact.digest)
            if artifact.digest in request.known:
                return replace(result, outcome="duplicate", same_as=request.known[artifact.digest])
            judging = Judging(artifact, replace(self.context, threshold=request.threshold), clock)
            key = self._structure_key(values)
            self._judge(judging, [e for e in self.evaluators if not e.exclusive], key)
        timed = [e for e in self.evaluators if e.exclusive]
        if timed and not judging.pruned:
            with self.alone_for(timed) as hold:
                clock.waited(hold.waited_s)
                self._judge(judging, timed, key)
            if hold.beside:
                judging.details[TIMED_BESIDE] = list(hold.beside)
        return replace(
            result,
            outcome="pruned" if judging.pruned else "measured",
            reason=judging.pruned,
            measurements=tuple(judging.measurements),
            details={**judging.details, **({"stages": dict(artifact.notes)} if artifact.notes else {})},
            model=None if judging.pruned else artifact.onnx_bytes,
        )

    def _excluded(self, values: Mapping[str, Mapping[str, Any]], clock: Clock) -> tuple[Measurement, ...]:
        """Returns the costs of a candidate that breaks a limit before it is trained; empty if it breaks none.

        The file of an untrained network of the same structure has the same costs. That of a new architecture is made only if a draft
        of it, which is exported much faster, comes near a limit.
        """
        limits = [c for c in self.limits if c.column in self._structural_columns]
        if not limits or not self.pipeline.costs_are_known_early(self.start, values, self.stage_context):
            return ()
        began = time.perf_counter()
        key = self._structure_key(values)
        if key not in self._far:
            self._far[key] = self._far_within(limits, values)
        if self._far[key]:
            clock.note("check_costs", time.perf_counter() - began)
            return ()
        costs = {m.column: m for m in self._structure_costs(values)}
        broken = any(c.column in costs and c.excess(costs[c.column].value) > 0 for c in limits)
        clock.note("check_costs", time.perf_counter() - began)
        return tuple(costs.values()) if broken else ()

    def _far_within(self, limits: Sequence[Constraint], values: Mapping[str, Mapping[str, Any]]) -> bool:
        """Returns whether a draft of a new architecture keeps every limit by a tenth of it."""
        if not any(stage.rebuilds for stage in self.pipeline.stages):
            return False
        # the cache must not take a draft for the file
        context = replace(self.stage_context, draft=True, cache=Cache())
        draft = self.pipeline.run(self.start, self._quick_values(values), context, cache_last=False)
        costs = {m.column: m.value for m in self._costs_of(draft)}
        return all(c.column in costs and c.excess(costs[c.column]) <= -NEAR * abs(c.limit) for c in limits)

    def build(self, candidate: Candidate, clock: Clock | None = None, watch: Watch | None = None) -> Artifact:
        """Returns the candidate's artifact.

        Args:
            candidate: The candidate.
            clock: Records the seconds of each stage.
            watch: Called after every epoch of training.
        """
        return self._build(self._canonical(candidate), clock, watch)

    def judge(
        self, artifact: Artifact, context: EvaluationContext, evaluators: Sequence[Evaluator]
    ) -> tuple[tuple[Measurement, ...], dict[str, Any]]:
        """Runs evaluators on one artifact; returns their measurements and details."""
        judging = Judging(artifact, context)
        self._judge(judging, evaluators)
        return tuple(judging.measurements), judging.details

    def measure(
        self, artifact: Artifact, context: EvaluationContext
    ) -> tuple[tuple[Measurement, ...], dict[str, Any]]:
        """Runs all evaluators on one artifact outside a trial; returns their measurements and details."""
        judging = Judging(artifact, context)
        with self.lock.shared():
            self._judge(judging, [e for e in self.evaluators if not e.exclusive])
        if timed := [e for e in self.evaluators if e.exclusive]:
            with self.alone_for(timed):
                self._judge(judging, timed)
        return tuple(judging.measurements), judging.details

    def structural(self, candidate: Candidate) -> tuple[Measurement, ...]:
        """Returns the measurements that follow from the structure; one file per structure is built.

        Raises:
            StageError: The candidate cannot be built.
            EvaluationError: The candidate cannot be evaluated.
        """
        return self._structural(self._canonical(candidate))

    def structure_columns(self, candidate: Candidate) -> dict[str, float]:
        """Returns the values that follow from a candidate's structure, by column, its sizes included.

        Raises:
            StageError: The candidate cannot be built.
            EvaluationError: The candidate cannot be evaluated.
        """
        return {m.column: m.value for m in self._structure_costs(self._canonical(candidate))}

    @cached_property
    def _structural_columns(self) -> set[str]:
        """Columns that follow from a file's structure, as far as the float model has them."""
        return {m.column for m in self._costs_of(self.dense)}

    @property
    def _structural_evaluators(self) -> list[Evaluator]:
        return [e for e in self.evaluators if e.follows_structure(self.context)]

    def _structure_costs(self, values: Mapping[str, Mapping[str, StageValue]]) -> tuple[Measurement, ...]:
        """Returns what follows from a structure, sizes included; evaluators run once per structure."""
        return (*self._structural(values), *sizes_of(self._quickest(values)))

    def _structural(self, values: Mapping[str, Mapping[str, StageValue]]) -> tuple[Measurement, ...]:
        key, wanted = self._structure_key(values), self._structural_evaluators
        if any((key, e.name) not in self._memo for e in wanted):
            self._judge(Judging(self._quickest(values), self.context), wanted, key)
        return tuple(m for e in wanted for m in self._memo[key, e.name].measurements)

    def _costs_of(self, artifact: Artifact) -> tuple[Measurement, ...]:
        """Returns what follows from the structure of one file, sizes included."""
        judging = Judging(artifact, self.context)
        self._judge(judging, self._structural_evaluators)
        return (*judging.measurements, *sizes_of(artifact))

    def _quickest(self, values: Mapping[str, Mapping[str, StageValue]]) -> Artifact:
        """Builds a file of the same structure as fast as possible."""
        return self._build(self._quick_values(values))

    def _quick_values(
        self, values: Mapping[str, Mapping[str, StageValue]]
    ) -> dict[str, dict[str, StageValue]]:
        return {s.name: dict(s.quickest(values[s.name])) for s in self.pipeline.stages}

    def explain(self, model: bytes) -> dict[str, Any]:
        """Returns details of an ONNX file that are too expensive for every trial, e.g. of its layers."""
        if (
            self.start.kind == "torch"
        ):  # training changes the outputs too, so that quantization error is not separable
            because = (
                "the networks were cut or trained, so that their layers are not the float model's any more"
            )
            return {"layers": [], "layers_absent_because": because}
        artifact = Artifact.onnx(model, self.dense.input)
        with self.lock.shared():
            explained = [evaluator.explain(artifact, self.context) for evaluator in self.evaluators]
        return {key: value for details in explained for key, value in details.items()}

    def alone_for(self, evaluators: Sequence[Evaluator]) -> AbstractContextManager[Hold]:
        """Returns the lock for evaluators: exclusive if one of them times something, else shared."""
        times = any(evaluator.times(self.context) for evaluator in evaluators)
        return self.lock.exclusive() if times else self.lock.shared()

    def _build(
        self,
        values: Mapping[str, Mapping[str, Any]],
        clock: Clock | None = None,
        watch: Watch | None = None,
    ) -> Artifact:
        after_step = clock.note if clock is not None else None
        return self.pipeline.run(self.start, values, replace(self.stage_context, watch=watch), after_step)

    def _judge(self, judging: Judging, evaluators: Sequence[Evaluator], key: str | None = None) -> None:
        """Runs evaluators; results that follow from the structure are computed once per structure key."""
        for evaluator in evaluators:
            memo = (key, evaluator.name) if key and evaluator.follows_structure(judging.context) else None
            if judging.pruned and memo is None:
                continue  # modelled costs are reported for a pruned candidate too
            evaluation = judging.run(evaluator, self._memo.get(memo) if memo else None)
            if memo is not None:
                self._memo[memo] = evaluation

    def _structure_key(self, values: Mapping[str, Mapping[str, Any]]) -> str:
        return canonical_key(self.pipeline.structure(self.start, values, self.stage_context))

    def _canonical(self, candidate: Candidate) -> dict[str, dict[str, Any]]:
        return self.pipeline.canonical(self.start, self.space, candidate, self.stage_context)

"""What the workers of a compression study hold: all that builds, runs or times a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from evaluators.base import Measurement
from evaluators.widened import widened
from search.record.trial_records import measurement_from_json, measurement_to_json
from search.trials.machine_lock import MachineLock
from search.trials.partial_estimates import PartialEstimates
from search.trials.re_evaluation import FrontReEvaluator
from search.trials.trial import CompressionRunner, TrialRequest, TrialResult
from spaces.candidate import Candidate
from spaces.quantization.sensitivity.layer_losses import measured_layers
from spaces.stages.artifact import Split

Call = Callable[..., Any]
"""Calls a method of `CompressionWork` where trials run, as `Executor.call` does."""


class CompressionWork:
    """Runs trials, low-fidelity evaluations, re-evaluations and explanations; methods return plain data.

    Executors ship it to their workers once.

    Args:
        runner: Builds and evaluates candidates.
        test: The test split.
        groups: The group of each of its examples, if they come in groups.
    """

    def __init__(self, runner: CompressionRunner, test: Split, groups: NDArray[Any] | None = None) -> None:
        self._runner = runner
        self._re_evaluator = FrontReEvaluator(runner, test, groups)
        self._partial = PartialEstimates(runner.context)

    @property
    def lock(self) -> MachineLock:
        """Keeps computations from running during timed evaluations."""
        return self._runner.lock

    def key(self, candidate: Candidate) -> str:
        """Returns a key that is equal for candidates known to yield the same file."""
        return self._runner.key(candidate)

    def run(self, request: TrialRequest) -> TrialResult:
        """Runs one trial."""
        return self._runner.run(request)

    # -- low-fidelity evaluations ----------------------------------------------------------------------------

    def structure_columns(self, candidate: Candidate) -> dict[str, float]:
        """Returns the values that follow from a candidate's structure, by column.

        Raises:
            ParedownError: They cannot be computed.
        """
        return self._runner.structure_columns(candidate)

    def statistics(self, candidates: Sequence[Candidate]) -> dict[str, list[float]]:
        """Returns the first stage's estimates by name, one of each for every candidate; the first stage's input is known.

        Raises:
            ParedownError: They cannot be computed.
        """
        runner = self._runner
        stage, start, context = runner.pipeline.stages[0], runner.start, runner.stage_context
        values = [runner.pipeline.canonical(start, runner.space, c, context) for c in candidates]
        estimates = stage.estimates(start, [v[stage.name] for v in values], context)
        return {name: [float(figure) for figure in figures] for name, figures in estimates.items()}

    def estimate(self, candidate: Candidate, n_examples: int) -> dict[str, Any]:
        """Runs a candidate on the first examples of the validation split.

        Args:
            candidate: The candidate.
            n_examples: One of the sizes of low-fidelity runs.

        Returns:
            The fields of a `PairedEstimate`, and `reference`, the float model's metric on the whole split.

        Raises:
            ParedownError: The candidate cannot be built or run.
        """
        with self._runner.lock.shared():
            paired = self._partial.estimate(
                self.key(candidate), n_examples, lambda: widened(self._runner.build(candidate))
            )
        return {**asdict(paired), "reference": self._partial.reference_value}

    def layer_losses(
        self, sensitivity: str, widths: Mapping[str, Sequence[int]], n_examples: int, grid: Mapping[str, str]
    ) -> dict[str, dict[int, float]]:
        """Returns losses of the float network with one layer quantized, by layer and width.

        Raises:
            ParedownError: They cannot be measured.
        """
        runner = self._runner
        with runner.lock.shared():
            return measured_layers(runner.start, sensitivity, widths, n_examples, grid, runner.stage_context)

    # -- after the search ------------------------------------------------------------------------------------

    def on_test(self, model: bytes | None) -> list[list[Any]]:
        """Returns the measurements of an ONNX file (None: the float model) on the test split, as `measurement_to_json`."""
        return [measurement_to_json(m) for m in self._re_evaluator.on_test(model)]

    def time_again(self, models: Sequence[bytes | None], n_rounds: int, offset: int) -> list[list[float]]:
        """Times models in turns: see `FrontReEvaluator`."""
        return self._re_evaluator.time_again(models, n_rounds, offset)

    def timed(
        self, model: bytes | None, own_ms: Sequence[float], float_ms: Sequence[float]
    ) -> list[list[Any]]:
        """Returns what follows from times by round, as `measurement_to_json`."""
        return [measurement_to_json(m) for m in self._re_evaluator.timed(model, own_ms, float_ms)]

    def dense(self) -> bytes:
        """Returns the float model's ONNX file."""
        return self._re_evaluator.dense()

    def rebuild(self, candidate: Candidate) -> bytes:
        """Returns a candidate's ONNX file."""
        return self._runner.build(candidate).onnx_bytes

    def explain(self, model: bytes) -> dict[str, Any]:
        """Returns details of an ONNX file, e.g. of its layers."""
        return self._runner.explain(model)


class CalledReEvaluator:
    """Re-evaluates models where trials run.

    Args:
        call: Calls a method of `CompressionWork`.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def on_test(self, model: bytes | None) -> tuple[Measurement, ...]:
        """Returns a model's measurements on the test split."""
        return tuple(map(measurement_from_json, self._call("on_test", model)))

    def time_again(self, models: Sequence[bytes | None], n_rounds: int, offset: int) -> list[list[float]]:
        """Times models in turns."""
        return list(self._call("time_again", list(models), n_rounds, offset))

    def timed(
        self, model: bytes | None, own_ms: Sequence[float], float_ms: Sequence[float]
    ) -> tuple[Measurement, ...]:
        """Returns the costs that follow from times by round, and those that are timed in another way."""
        return tuple(map(measurement_from_json, self._call("timed", model, list(own_ms), list(float_ms))))

    def dense(self) -> bytes:
        """Returns the uncompressed model as an ONNX file."""
        return bytes(self._call("dense"))

    def rebuild(self, candidate: Candidate) -> bytes:
        """Builds a candidate's ONNX file again."""
        return bytes(self._call("rebuild", candidate))

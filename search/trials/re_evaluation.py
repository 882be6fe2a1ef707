"""Re-evaluation of the models on the front: on the test split, and with new timings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evaluators.base import EvaluationContext, Measurement, Reference
from evaluators.cost.latency.measured import latency_measurements, measured_devices
from evaluators.task.accuracy import reference_outputs
from search.trials.trial import CompressionRunner
from spaces.stages.artifact import Artifact, Split


@runtime_checkable
class TimesAgain(Protocol):
    """An evaluator that can time several models in turns; `LatencyEvaluator` is one."""

    def time_again(
        self, artifacts: Sequence[Artifact], context: EvaluationContext, n_rounds: int, offset: int = 0
    ) -> NDArray[np.float64]:
        """Returns times in ms, `(n_artifacts, n_rounds)`, after `offset` earlier rounds."""


class FrontReEvaluator:
    """Evaluates models again: on the test split, unused by the search, and with new timings.

    A model is an ONNX file, or None for the uncompressed model.

    Args:
        runner: The trials' runner.
        test: The test split.
        groups: The group of each of its examples, if they come in groups.
    """

    def __init__(self, runner: CompressionRunner, test: Split, groups: NDArray[Any] | None = None) -> None:
        self._runner, self._test, self._groups = runner, test, groups
        self._context: EvaluationContext | None = None

    def on_test(self, model: bytes | None) -> tuple[Measurement, ...]:
        """Returns a model's measurements on the test split, named `test_*`."""
        with self._runner.lock.shared():
            if self._context is None:
                reference = Reference(self._runner.dense, reference_outputs(self._runner.dense, self._test))
                self._context = replace(
                    self._runner.context, split=self._test, reference=reference, groups=self._groups
                )
            scoring = [e for e in self._runner.evaluators if e.scores_split]
            measurements, _ = self._runner.judge(self._artifact(model), self._context, scoring)
        return tuple(replace(m, name=f"test_{m.name}") for m in measurements if m.unit != "bytes")

    def time_again(self, models: Sequence[bytes | None], n_rounds: int, offset: int) -> list[list[float]]:
        """Times models in turns, with the machine to itself; returns ms, `(n_models, n_rounds)`; empty if nothing is timed."""
        timer = next((e for e in self._runner.evaluators if isinstance(e, TimesAgain)), None)
        if timer is None or not measured_devices(self._runner.context):
            return []
        artifacts = [self._artifact(model) for model in models]
        with self._runner.lock.exclusive():
            times = timer.time_again(artifacts, self._runner.context, n_rounds, offset)
        return [[float(ms) for ms in row] for row in times]

    def timed(
        self, model: bytes | None, own_ms: Sequence[float], float_ms: Sequence[float]
    ) -> tuple[Measurement, ...]:
        """Returns the costs that follow from times by round, and those of evaluators that time in another way.

        Args:
            model: The model.
            own_ms: Its times by round; empty if it was not timed in turns.
            float_ms: The uncompressed model's.
        """
        context = self._runner.context
        latencies = tuple(
            m
            for device in (measured_devices(context) if own_ms else ())
            for m in latency_measurements(own_ms, float_ms, device)
        )
        rest = [e for e in self._runner.evaluators if e.exclusive and not isinstance(e, TimesAgain)]
        with self._runner.alone_for(rest):
            more, _ = self._runner.judge(self._artifact(model), replace(context, measured=latencies), rest)
        return (*latencies, *more)

    def dense(self) -> bytes:
        """Returns the uncompressed model as an ONNX file."""
        return self._runner.dense.onnx_bytes

    def _artifact(self, model: bytes | None) -> Artifact:
        dense = self._runner.dense
        return dense if model is None else Artifact.onnx(model, dense.input)

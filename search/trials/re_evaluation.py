"""Re-evaluation of the models on the front: on the test split, and with new timings."""

from dataclasses import replace

from evaluators.base import EvaluationContext, Measurement, Reference
from evaluators.task.accuracy import reference_outputs
from search.trials.trial import CompressionRunner
from spaces.stages.artifact import Artifact, Split


class FrontReEvaluator:
    """Evaluates a model of the front again: on the test split, unused by the search, and with new timings.

    Measurements on the test split are named `test_*`; a new timing replaces the first one.

    Args:
        runner: The trials' runner.
        test: The test split.
    """

    def __init__(self, runner: CompressionRunner, test: Split) -> None:
        self._runner, self._test = runner, test
        self._context: EvaluationContext | None = None

    def baseline(self) -> tuple[Measurement, ...]:
        """Returns the uncompressed model's measurements on the test split, and its timings."""
        return self._judge(self._runner.dense)

    def re_evaluate(self, model: bytes) -> tuple[Measurement, ...]:
        """Returns a model's measurements on the test split, and its timings."""
        return self._judge(Artifact.onnx(model, self._runner.dense.input))

    def _judge(self, artifact: Artifact) -> tuple[Measurement, ...]:
        timed = [e for e in self._runner.evaluators if e.exclusive]
        with self._runner.alone_for(timed):
            again, _ = self._runner.judge(artifact, self._runner.context, timed)
        return (*self._on_test(artifact), *again)

    def _on_test(self, artifact: Artifact) -> tuple[Measurement, ...]:
        with self._runner.lock.shared():
            if self._context is None:
                reference = Reference(self._runner.dense, reference_outputs(self._runner.dense, self._test))
                self._context = replace(self._runner.context, split=self._test, reference=reference)
            scoring = [e for e in self._runner.evaluators if e.scores_split]
            measurements, _ = self._runner.judge(artifact, self._context, scoring)
        return tuple(replace(m, name=f"test_{m.name}") for m in measurements if m.unit != "bytes")

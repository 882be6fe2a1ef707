"""Latency relative to the duration of what is processed: milliseconds per second of sound."""

from typing import ClassVar

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline
from spaces.errors import ConfigError
from spaces.stages.artifact import Artifact


class RealTimeEvaluator(Evaluator):
    """Divides every latency of the evaluators before it by the duration of an input, so it has to be listed last.

    Yields, for each device whose latency is known, `latency_per_second` (milliseconds per second of input) and
    `real_time_factor` (seconds per second: below 1 the device keeps up).

    Args:
        seconds: Duration of an input.
    """

    name: ClassVar[str] = "real_time"
    exclusive: ClassVar[bool] = True  # after everything that is timed
    repeatable: ClassVar[bool] = False

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ConfigError(f"evaluator.real_time.seconds must be above 0, not {seconds}")
        self.seconds = float(seconds)

    def times(self, context: EvaluationContext) -> bool:
        """False: it computes from timings."""
        del context
        return False

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of both figures on every device."""
        return outline.costs(("latency_per_second", "real_time_factor"))

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the figures of every latency in `context.measured`."""
        latencies = [m for m in context.measured if m.name == "latency_ms"]
        made = []
        for known in latencies:
            per_s = known.value / self.seconds
            made += [
                Measurement("latency_per_second", per_s, "ms/s", known.source, known.device),
                Measurement("real_time_factor", per_s / 1e3, "s/s", known.source, known.device),
            ]
        reason = "no evaluator before it gave a latency; name evaluator.real_time last"
        return Evaluation(tuple(made), {} if made else {"real_time": {"absent_because": reason}})

"""How close a model's outputs are to the float model's: their agreement as the task sees it, and their signal-to-noise ratio."""

import numpy as np

from evaluators.base import Measurement
from evaluators.metric import Metric, Outputs
from evaluators.task.layer_sqnr import sqnr_db
from evaluators.task.metrics.same_class import SameClass
from evaluators.task.statistics.scores import Gathered, value_of
from spaces.errors import EvaluationError
from spaces.stages.inputs import parts_of


class Similarity:
    """Compares outputs batch by batch.

    Args:
        agreement: A metric that scores outputs with the float model's outputs as labels; None for none.
    """

    def __init__(self, agreement: Metric | None) -> None:
        self._agreement = agreement
        self._gathered = Gathered([agreement] if agreement is not None else [])
        self._signal = self._noise = 0.0
        self._like = True

    def add(self, outputs: Outputs, reference: Outputs) -> None:
        """Adds a batch of outputs, and the float model's outputs for the same examples."""
        pairs = [*zip(parts_of(outputs), parts_of(reference), strict=True)]
        self._like = self._like and all(one.shape == other.shape for one, other in pairs)
        if not self._like:
            return
        numbers = [
            pair for pair in pairs if pair[1].dtype.kind == "f"
        ]  # whole numbers are decisions, without noise
        for output, of_float in numbers or pairs:
            signal = of_float.astype(np.float64)
            self._signal += float(np.sum(signal**2))
            self._noise += float(np.sum((output - signal) ** 2))
        if self._agreement is not None:
            self._gathered.add(outputs, reference)

    def measurements(self) -> list[Measurement]:
        """Returns the agreement and `output_sqnr_db`; nothing if the outputs have another shape than the float model's."""
        if not self._like:
            return []
        ratio = Measurement("output_sqnr_db", sqnr_db(self._signal, self._noise), "dB", "measured")
        metric = self._agreement
        if metric is None:
            return [ratio]
        try:
            value = value_of(metric, self._gathered.statistics()[0])
        except EvaluationError:  # it may have none, e.g. if all outputs of the float model are equal
            return [ratio]
        return [Measurement(metric.name, value, metric.unit, "measured"), ratio]


def agreement_for(agreement: Metric | None, reference: Outputs, whole: bool = False) -> Metric | None:
    """Returns the task's agreement; without one the share of equal classes, if outputs are rows of class scores.

    Args:
        agreement: The task's, if it has one.
        reference: The float model's outputs.
        whole: Whether the task judges outputs in their own shape.
    """
    (first, *others) = parts_of(reference)
    are_classes = not whole and not others and first.ndim == 2 and first.shape[1] > 1
    return agreement or (SameClass() if are_classes else None)

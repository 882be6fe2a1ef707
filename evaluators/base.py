"""What an evaluator is: it turns an artifact into measurements and knows nothing of spaces or samplers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.devices import Device
from evaluators.task.task import Metric
from spaces.artifact import Artifact, Split

Source = Literal["measured", "modelled", "estimated"]


@dataclass(frozen=True)
class Measurement:
    """A name, a number, a unit, and a source.

    Attributes:
        name: e.g. `top1`, `latency_ms`, `weight_bytes`; carries its unit where it has one.
        value: The number.
        unit: e.g. `%`, `ms`, `bytes`, `dB`.
        source: `measured`, `modelled` (by us) or `estimated` (by somebody else's tool).
        device: The device that a cost is for; None for a metric of the model itself.
    """

    name: str
    value: float
    unit: str
    source: Source
    device: str | None = None

    @property
    def column(self) -> str:
        """The column of trials.csv: `metric.<name>` or `cost.<device>.<name>`."""
        return f"metric.{self.name}" if self.device is None else f"cost.{self.device}.{self.name}"


@dataclass(frozen=True)
class Reference:
    """The uncompressed model, against which every candidate is judged.

    Attributes:
        artifact: The float ONNX model.
        outputs: Its outputs on `EvaluationContext.split`, `(n, n_outputs)` float32.
    """

    artifact: Artifact
    outputs: NDArray[np.float32]


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluator may use besides the artifact.

    Attributes:
        split: The data to judge on (validation during the search, test once for the front).
        metric: How good an output is.
        reference: The float model and its outputs on `split`.
        devices: The devices that costs are wanted for, by name.
        seed: Seed of everything random in the evaluator.
        measured: What the evaluators before this one said of the same artifact.
    """

    split: Split
    metric: Metric
    reference: Reference
    devices: Mapping[str, Device] = field(default_factory=dict)
    seed: int = 0
    measured: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Measurements, and what explains them (JSON-able; e.g. `{"layers": [{"layer": ..., "sqnr_db": ...}]}`)."""

    measurements: tuple[Measurement, ...]
    details: Mapping[str, Any] = field(default_factory=dict)


class Evaluator(ABC):
    """Turns an artifact into measurements.

    Attributes:
        name: Short name; the step's time is logged as `seconds.<name>`.
        exclusive: Whether nothing else may compute on the machine meanwhile (anything that is timed).
        repeatable: Whether a second call gives the same values (a timing does not).
        scores_split: Whether it judges by the context's data, so that the front is judged once more on the test split.
    """

    name: ClassVar[str]
    exclusive: ClassVar[bool] = False
    repeatable: ClassVar[bool] = True
    scores_split: ClassVar[bool] = False

    def possible(self, context: EvaluationContext) -> frozenset[str]:
        """Returns columns that the uncompressed model may lack but others can have (an int8-only device's latency)."""
        del context
        return frozenset()

    @abstractmethod
    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact.

        Raises:
            EvaluationError: The artifact cannot be judged, e.g. its outputs are not finite.
        """

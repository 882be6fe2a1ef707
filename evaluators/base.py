"""What an evaluator is: it turns an artifact into measurements and knows nothing of spaces or samplers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.column import Column
from evaluators.devices.device import Device
from evaluators.metric import Metric
from spaces.stages.artifact import Artifact, Split

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
        return str(Column.of(self.name, self.device))


@dataclass(frozen=True)
class Reference:
    """The uncompressed model, against which every candidate is judged.

    Attributes:
        artifact: The float ONNX model.
        outputs: Its outputs on `EvaluationContext.split`, `(n, n_outputs)` float32.
        batch_size: Most examples a batch that they were computed with.
        threads: onnxruntime's threads within an operator that they were computed with.
    """

    artifact: Artifact
    outputs: NDArray[np.float32]
    batch_size: int = 256
    threads: int = 1


@dataclass(frozen=True)
class EarlyStoppingThreshold:
    """How good a model must be to be of use.

    Attributes:
        least: The metric's value, in its unit, that it has to exceed.
        why: What asks for it, in words: another trial, or a constraint.
    """

    least: float
    why: str


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
        needed: How good the metric has to be for the artifact to matter; None judges every artifact to the end.
    """

    split: Split
    metric: Metric
    reference: Reference
    devices: Mapping[str, Device] = field(default_factory=dict)
    seed: int = 0
    measured: tuple[Measurement, ...] = ()
    threshold: EarlyStoppingThreshold | None = None


@dataclass(frozen=True)
class Evaluation:
    """What an evaluator says.

    Attributes:
        measurements: Measurements.
        details: What explains them, JSON-able.
        pruned: Why the judging stopped before its end, in words; empty if it did not. What was estimated until then has
            names that no full measurement has.
    """

    measurements: tuple[Measurement, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    pruned: str = ""


class Evaluator(ABC):
    """Turns an artifact into measurements.

    Attributes:
        name: Short name; the step's time is logged as `seconds.<name>`.
        exclusive: Whether nothing else may compute on the machine meanwhile (anything that is timed).
        repeatable: Whether a second call gives the same values (a timing does not).
        scores_split: Whether it judges by the context's data, so that the front is judged once more on the test split.
        structural: Whether its measurements follow from the file's structure (nodes, shapes, types, sizes) alone; ask
            `follows_structure`, which knows the devices too.
    """

    name: ClassVar[str]
    exclusive: ClassVar[bool] = False
    repeatable: ClassVar[bool] = True
    scores_split: ClassVar[bool] = False
    structural: ClassVar[bool] = False

    def follows_structure(self, context: EvaluationContext) -> bool:
        """Whether files of equal structure get equal measurements in this study."""
        del context
        return self.structural

    def explain(self, artifact: Artifact, context: EvaluationContext) -> Mapping[str, Any]:
        """Returns details that are too dear for every trial; the study asks for them for the models that it reports on."""
        del artifact, context
        return {}

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

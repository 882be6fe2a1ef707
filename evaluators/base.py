"""The evaluator interface: an evaluator turns an artifact into measurements and depends on no space or sampler."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

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
        source: `measured`, `modelled` (by this package) or `estimated` (by another tool).
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
    """The uncompressed model, with which every candidate is compared.

    Attributes:
        artifact: The float ONNX model.
        outputs: Its outputs on `EvaluationContext.split`, as `OutputSpec.read` gives them: `(n, n_outputs)` float32 where
            classes are told apart.
        batch_size: Maximum batch size with which `outputs` were computed.
        threads: onnxruntime's threads within an operator with which `outputs` were computed.
    """

    artifact: Artifact
    outputs: Any
    batch_size: int = 256
    threads: int = 1


@dataclass(frozen=True)
class EarlyStoppingThreshold:
    """The metric value that an artifact has to reach; if it confidently does not, its evaluation may stop early.

    Attributes:
        least: The threshold, in the metric's unit.
        why: What sets the threshold, as text: another trial, or a constraint.
    """

    least: float
    why: str


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluator may use besides the artifact.

    Attributes:
        split: The data to evaluate on (validation during the search, test once for the front).
        metric: Scores the outputs.
        reference: The float model and its outputs on `split`.
        others: Further metrics that are reported.
        agreement: Scores outputs with the float model's outputs as labels; None compares classes, if outputs are class scores.
        groups: The group of each example of `split`, `(n,)`, e.g. its speaker; None where examples are independent.
        devices: The devices that costs are wanted for, by name.
        seed: Seed of everything random in the evaluator.
        measured: Measurements of the same artifact by the evaluators before this one.
        threshold: Early-stopping threshold of the metric; None evaluates every artifact on the whole split.
    """

    split: Split
    metric: Metric
    reference: Reference
    devices: Mapping[str, Device] = field(default_factory=dict)
    seed: int = 0
    measured: tuple[Measurement, ...] = ()
    threshold: EarlyStoppingThreshold | None = None
    others: tuple[Metric, ...] = ()
    agreement: Metric | None = None
    groups: NDArray[Any] | None = None

    @property
    def exact_sums(self) -> bool:
        """Whether outputs are computed with exact 8-bit sums, as other devices add them.

        On x86 processors without VNNI onnxruntime's 8-bit kernels saturate, which matters only if this
        machine is one of the devices.
        """
        return not any(device.measured for device in self.devices.values())


@dataclass(frozen=True)
class Outline:
    """What is known of a study before its data and its network are read.

    Attributes:
        metrics: The task's, that to search by first.
        devices: The devices that costs are wanted for, by name.
        agreement: As in `EvaluationContext`.
    """

    metrics: Sequence[Metric]
    devices: Mapping[str, Device] = field(default_factory=dict)
    agreement: Metric | None = None

    def costs(self, names: Iterable[str], measured: bool | None = None) -> frozenset[str]:
        """Returns the columns of costs: on every device, or on those that are this machine, or on the others."""
        devices = [d.name for d in self.devices.values() if measured in (None, d.measured)]
        return frozenset(str(Column.of(name, device)) for name in names for device in devices)


def metric_columns(names: Iterable[str], *ends: str) -> frozenset[str]:
    """Returns the columns of metrics by name, and of those names with each of the ends, such as `_low`."""
    return frozenset(str(Column.of(f"{name}{end}")) for name in names for end in ("", *ends))


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluator for one artifact.

    Attributes:
        measurements: Measurements.
        details: Explanations of the measurements, JSON-serializable.
        pruned: Why the evaluation stopped early, as text; empty if it did not. The measurements are then estimates, under
            names that no full measurement has.
    """

    measurements: tuple[Measurement, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    pruned: str = ""


class Evaluator(ABC):
    """Turns an artifact into measurements.

    Attributes:
        name: Short name; the step's time is logged as `seconds.<name>`.
        exclusive: Whether nothing else may compute on the machine during an evaluation (true if it measures time).
        repeatable: Whether a second call gives the same values (a timing does not).
        scores_split: Whether the measurements depend on the context's split, so that the front is evaluated once more on
            the test split.
        structural: Whether the measurements follow from the file's structure (nodes, shapes, types, sizes) alone;
            `follows_structure` also checks the devices of the context.
    """

    name: ClassVar[str]
    exclusive: ClassVar[bool] = False
    repeatable: ClassVar[bool] = True
    scores_split: ClassVar[bool] = False
    structural: ClassVar[bool] = False

    def follows_structure(self, context: EvaluationContext) -> bool:
        """Whether files of equal structure get equal measurements in this context."""
        del context
        return self.structural

    def times(self, context: EvaluationContext) -> bool:
        """Whether an evaluation measures time or power in this context, so that nothing else may compute meanwhile."""
        del context
        return self.exclusive

    def explain(self, artifact: Artifact, context: EvaluationContext) -> Mapping[str, Any]:
        """Returns details that are too expensive for every trial; they are requested for the models in the report."""
        del artifact, context
        return {}

    def possible(self, context: EvaluationContext) -> frozenset[str]:
        """Returns columns that candidates can have even if the uncompressed model lacks them (latency on an int8-only device)."""
        del context
        return frozenset()

    def columns(self, outline: Outline) -> frozenset[str] | None:
        """Returns every column that measurements can have, so that a wrong name in an objective is found before anything is measured.

        None if they are only known from measuring; then so is a wrong name. A class that derives from one with other columns overrides it.
        """
        del outline
        return None

    @abstractmethod
    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the measurements of one ONNX artifact.

        Raises:
            EvaluationError: The artifact cannot be evaluated, e.g. its outputs are not finite.
        """

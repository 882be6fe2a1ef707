"""The task interface: data splits, and the metric that scores outputs on them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from evaluators.metric import Metric
from spaces.stages.artifact import Artifact, Split
from spaces.stages.output_spec import squeezed_size


@dataclass(frozen=True)
class Splits:
    """Four disjoint splits. The search never sees `test`."""

    train: Split
    calibration: Split
    validation: Split
    test: Split


class Task(ABC):
    """Data and metric.

    Attributes:
        input_shape: Shape of one model input, without the batch axis; for a model with several inputs, shapes by name.
        n_classes: Number of classes; None where labels are no classes.
        metric: Scores the outputs.
        others: Further metrics that are reported.
        agreement: Scores outputs with the float model's outputs as labels; None compares classes, if outputs are class scores.
        output: Name of the model's output that is judged, or names of several; None takes the first, or the only one whose
            shape fits.
        whole_outputs: Whether the metric takes outputs in their own shape. Otherwise they are one row per example, `(n,
            n_classes)`, and labels lie in `[0, n_classes)`.
        output_batch_axis: Axis of the examples in whole outputs; 1 for `(steps, n, ...)`. Metrics get it in front.
        loss: Name of the training loss that suits the labels, one of `spaces.task_losses.LOSSES`; None where
            no training can use them.
        data_settings: Config path of the section that says how examples are read, for messages.
    """

    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]
    n_classes: int | None = None
    metric: Metric
    others: tuple[Metric, ...] = ()
    agreement: Metric | None = None
    output: str | Sequence[str] | None = None
    whole_outputs: ClassVar[bool] = False
    output_batch_axis: int = 0
    loss: str | None = "cross_entropy"
    data_settings: ClassVar[str] = "task"

    @abstractmethod
    def splits(self) -> Splits:
        """Loads the data and returns the four disjoint splits.

        Raises:
            InputError: A file is missing, damaged or of another format, or a split would be empty.
        """

    def labelled_by(self, reference: Artifact, splits: Splits, *, trains: bool) -> Splits:
        """Returns the splits with labels that the uncompressed network makes; by default they have their own.

        Args:
            reference: The uncompressed network, ONNX, judged by the chosen output.
            splits: What `splits` returned.
            trains: Whether a stage needs the train split.
        """
        return splits

    def groups(self) -> Mapping[str, NDArray[Any]]:
        """Returns for splits by name, once they are loaded, the group of each example, `(n,)`, e.g. its speaker.

        A split is absent where its examples are independent; by default all are.
        """
        return {}

    def notes(self) -> tuple[str, ...]:
        """Returns remarks on the data for the report, e.g. how good a guess without any network is; by default none."""
        return ()

    def class_names(self) -> tuple[str, ...]:
        """Returns, once the splits are loaded, the names of the classes in the order of outputs; empty if the data have none."""
        return ()

    def preparation(self) -> str:
        """Returns what is done to a raw example before the transform of its split, for whoever runs the model; empty if that is nothing."""
        return ""

    def guess_error(self) -> float | None:
        """Returns the metric of a guess that is the same for all validation examples; None, by default, where that is no error."""
        return None

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged, as text; None if it can.

        Args:
            output: What the model yields for `n` examples.
            n: Number of examples.
        """
        if self.whole_outputs:
            return (
                None
                if output.ndim and len(output) == n
                else f"the model yields {output.shape} for {n} examples"
            )
        size = squeezed_size(output.shape, n)
        if size is None:
            return f"the model yields {output.shape} for {n} examples; one row of outputs for each is needed"
        n_classes = self.n_classes or 1
        if size >= n_classes or (size == 1 and n_classes == 2 and output.dtype.kind == "f"):
            return None
        return f"the model has {size} outputs, but the task has {n_classes} classes (task.n_classes)"

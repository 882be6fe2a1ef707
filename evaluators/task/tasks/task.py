"""The task interface: data splits, and the metric that scores outputs on them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.metric import Metric
from spaces.stages.artifact import Split


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
        n_classes: Number of classes; labels lie in `[0, n_classes)`.
        metric: Scores the outputs.
        output: Name of the model's output that is judged; None takes the first, or the only one whose shape fits.
    """

    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]]
    n_classes: int
    metric: Metric
    output: str | None = None

    @abstractmethod
    def splits(self) -> Splits:
        """Loads the data and returns the four disjoint splits.

        Raises:
            InputError: A file is missing, damaged or of another format, or a split would be empty.
        """

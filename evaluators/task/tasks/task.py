"""A task: data splits and the metric that says how good an output is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spaces.stages.artifact import Split


class Metric(Protocol):
    """Scores outputs example by example, so that differences can be paired.

    Attributes:
        name: e.g. `top1`; becomes `metric.top1`.
        unit: e.g. `%`.
        scale: The mean of the examples' scores times this is the metric (100 for per cent).
    """

    name: str
    unit: str
    scale: float

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores `(n, n_outputs)` outputs against `(n,)` labels; returns `(n,)`, higher is better."""


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
        input_shape: Shape of one model input, without the batch axis.
        n_classes: Number of classes; labels lie in `[0, n_classes)`.
        metric: How good an output is.
    """

    input_shape: tuple[int, ...]
    n_classes: int
    metric: Metric

    @abstractmethod
    def splits(self) -> Splits:
        """Loads the data and returns the four disjoint splits.

        Raises:
            InputError: A file is missing, damaged or foreign, or a split would be empty.
        """

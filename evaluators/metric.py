"""The metric interface: a metric says how good a model's outputs are, example by example or for all of them together."""

from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spaces.stages.inputs import Inputs

Outputs = Inputs
"""A model's outputs on a batch: `(b, ...)`, or such an array for each of several outputs by name."""

Labels = NDArray[Any]
"""Labels of a batch `(b, ...)` of any type; ragged ones as `(b,)` objects, an array each."""

Direction = Literal["maximize", "minimize"]


class Metric(Protocol):
    """What every metric has. `MeanMetric` and `PooledMetric` are the two kinds.

    A class need not inherit from them: one with `per_example` averages; `direction` and `bounds` may then be absent.

    Attributes:
        name: e.g. `top1`; becomes `metric.top1`.
        unit: e.g. `%`.
        scale: Factor from scores to the metric's unit (100 for per cent).
    """

    name: str
    unit: str
    scale: float


class MeanMetric:
    """A metric that is the mean of the examples' scores, so that differences can be paired and evaluations stopped early.

    Attributes:
        name: As in `Metric`.
        unit: As in `Metric`.
        scale: As in `Metric`.
        direction: Whether higher or lower is better.
        bounds: Lowest and highest possible score; None if there are none: then no evaluation is stopped early. Where all
            scores of the uncompressed model are 0 or 1, these are the bounds.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    direction: Direction = "maximize"
    bounds: tuple[float, float] | None = None

    def per_example(self, outputs: Any, labels: Labels) -> NDArray[np.float64]:
        """Returns the scores of a batch, `(b,)`; each depends on its example alone."""
        raise NotImplementedError


class PooledMetric:
    """A metric that is no mean over examples, such as the area under a curve.

    Attributes:
        name: As in `Metric`.
        unit: As in `Metric`.
        scale: As in `Metric`.
        direction: Whether higher or lower is better.
        whole: Whether `statistics` needs the outputs of all examples at once, because they depend on one another.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    direction: Direction = "maximize"
    whole: ClassVar[bool] = False

    def statistics(self, outputs: Any, labels: Labels) -> NDArray[Any]:
        """Returns what the metric has to know of each example of a batch, `(b, ...)`, or `(b,)` objects."""
        raise NotImplementedError

    def pooled(self, statistics: NDArray[Any], weights: NDArray[np.float64]) -> float:
        """Returns the metric, before `scale`, of examples that count `weights` times each.

        Args:
            statistics: Those of all examples, `(n, ...)`.
            weights: `(n,)`, 0 or more; all 1 for the metric itself, others for its bootstrap.
        """
        raise NotImplementedError

    def pooled_each(self, statistics: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns `pooled` for each row of weights `(m, n)`; a metric that can share work between rows overrides it."""
        return np.array([self.pooled(statistics, row) for row in weights], np.float64)

    def clusters(self, statistics: NDArray[Any]) -> NDArray[np.int64] | None:
        """Returns numbers from 0 on of what is drawn together by the bootstrap, `(n,)`, e.g. clips; None draws examples.

        They may depend on labels only, so that two models get the same resamples.
        """
        return None


class SumMetric(PooledMetric):
    """A pooled metric that is a function of sums over the examples, such as the root of a mean of squares."""

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the metric for each row of sums.

        Args:
            sums: `(m, k)`: the sums of the examples' statistics, flattened, for each of `m` weightings.
        """
        raise NotImplementedError

    def pooled(self, statistics: NDArray[Any], weights: NDArray[np.float64]) -> float:
        """Returns the metric, before `scale`, of examples that count `weights` times each."""
        return float(self.pooled_each(statistics, weights[None])[0])

    def pooled_each(self, statistics: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns `pooled` for each row of weights `(m, n)`."""
        flat = statistics.reshape(len(statistics), -1).astype(np.float64, copy=False)
        return np.asarray(self.of_sums(weights @ flat), np.float64)


def direction_of(metric: Metric) -> Direction:
    """Returns whether higher or lower values of a metric are better."""
    direction: Direction = getattr(metric, "direction", "maximize")
    return direction


def sign_of(metric: Metric) -> float:
    """Returns 1 where higher is better, -1 where lower is."""
    return 1.0 if direction_of(metric) == "maximize" else -1.0

"""Embeddings: the network maps examples to vectors, and those of one class are to lie near one another."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.vectors.neighbours import Distance
from evaluators.task.metrics.vectors.recall_at_k import RecallAtK
from evaluators.task.metrics.vectors.same_neighbours import SameNeighbours
from evaluators.task.tasks.classes import class_numbers
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError
from spaces.stages.array_split import Indices


class EmbeddingTask(DataTask):
    """Finds examples of the same class by the nearest vectors; the network yields `(n, d)`.

    Agreement is the share of the ten nearest neighbours that are those of the float model.

    Args:
        data: The loader.
        distance: `cosine` or `l2`.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "recall_at_1": partial(RecallAtK, 1), "recall_at_5": partial(RecallAtK, 5), "recall_at_10": partial(RecallAtK, 10)
    }  # fmt: skip
    loss = "contrastive"

    def __init__(self, data: Data, distance: Distance = "cosine", **settings: Any) -> None:
        super().__init__(data, **settings)
        if distance not in ("cosine", "l2"):
            raise ConfigError(f"task.distance must be cosine or l2, not {distance!r}")
        self._distance = distance
        self.agreement = SameNeighbours(distance=distance)

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric of the task's distance."""
        return factory(distance=self._distance)

    def checked(self, examples: Examples) -> NDArray[np.int64]:
        """Returns the classes' numbers, `(n,)`. Raises InputError if a label is no class."""
        return class_numbers(examples)

    def strata(self, labels: NDArray[Any]) -> Indices | None:
        """Returns the classes."""
        return labels

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it is no vector for each example."""
        if output.ndim >= 2 and len(output) == n and output.size > n:
            return None
        return f"the model yields {output.shape} for {n} examples; a vector for each is needed, (n, d)"

"""Regression: each example has one number or several as its label."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric, direction_of
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.numbers.mae import MAE
from evaluators.task.metrics.numbers.r2 import R2
from evaluators.task.metrics.numbers.rmse import RMSE
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import InputError


class RegressionTask(DataTask):
    """Predicts numbers; outputs have as many values per example as labels. Agreement is R2 with the float model's outputs as labels.

    Args:
        data: The loader.
        unit: The labels' unit, for the report.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {"rmse": RMSE, "mae": MAE, "r2": R2}
    loss = "squared"

    def __init__(self, data: Data, unit: str = "", **settings: Any) -> None:
        super().__init__(data, **settings)
        self._unit = unit
        self.agreement = R2("agreement")

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric; errors have the labels' unit."""
        return factory() if factory is R2 else factory(self._unit)

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the labels as float32, `(n, k)`. Raises InputError if one is no finite number."""
        return checked_numbers(examples)

    def guess_error(self) -> float | None:
        """Returns the error of the mean label of the validation split; None if the metric is no error."""
        if direction_of(self.metric) == "maximize":
            return None
        examples, parts = self._ready
        labels = examples.labels[parts["validation"]]
        guesses = np.broadcast_to(labels.mean(axis=0), labels.shape)
        return value_of(self.metric, statistics_of(self.metric, guesses, labels))

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has another number of values than labels have."""
        return values_misfit(output, n, self._examples.labels)


def checked_numbers(examples: Examples) -> NDArray[np.float32]:
    """Returns numeric labels as float32, `(n, ...)`; `(n, 1)` if each is one number.

    Raises:
        InputError: A label is no finite number.
    """
    labels = examples.labels
    for row, label in enumerate(labels.tolist() if labels.dtype.kind in "UO" else ()):
        if isinstance(label, str) and not _is_number(label):
            raise InputError(f"{examples.place(row)}: the label {label!r} is not a number")
    if labels.dtype.kind not in "iufb":
        raise InputError(
            f"{examples.folder}: labels must be numbers, not {labels.dtype} of shape {labels.shape}"
        )
    numbers = labels.reshape(len(labels), 1) if labels.ndim == 1 else labels
    bad = ~np.isfinite(numbers.reshape(len(numbers), -1).astype(np.float64)).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{examples.place(row)}: the label {labels[row]} is not finite")
    return numbers.astype(np.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def values_misfit(output: NDArray[Any], n: int, labels: NDArray[Any]) -> str | None:
    """Returns why an output for `n` examples has not as many values as a label; None if it has."""
    size, wanted = output.size // max(n, 1), int(np.prod(labels.shape[1:]))
    if output.ndim and len(output) == n and size == wanted:
        return None
    return f"the model yields {output.shape} for {n} examples, but a label has {wanted} values"

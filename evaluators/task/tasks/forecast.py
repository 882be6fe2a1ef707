"""Forecasting: regression of what follows a window of a series, compared with the naive forecast."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Examples
from evaluators.task.metrics.numbers.mae import MAE
from evaluators.task.metrics.numbers.mase import MASE
from evaluators.task.metrics.numbers.r2 import R2
from evaluators.task.metrics.numbers.rmse import RMSE
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.regression import RegressionTask
from spaces.errors import InputError


class ForecastTask(RegressionTask):
    """Forecasts numbers. `mase` is the mean absolute error in units of that of the naive forecast, the last value, on the training split.

    Args: those of `RegressionTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "mase": MASE,
        "mae": MAE,
        "rmse": RMSE,
        "r2": R2,
    }

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric; `mase` knows the naive forecast's errors."""
        return factory(self._naive_errors) if factory is MASE else super().made(factory)

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the labels as float32, `(n, ...)`. Raises InputError if one is no finite number, or there is no naive forecast."""
        if examples.naive is None:
            raise InputError(
                f"{examples.folder}: the loader gives no naive forecast (task.data); task=regression needs none"
            )
        return super().checked(examples)

    def notes(self) -> tuple[str, ...]:
        """Returns how good the naive forecast is."""
        examples, parts = self._ready
        rows = parts["validation"]
        naive, labels = self._naive(examples)[rows], examples.labels[rows]
        values = [
            f"{metric.name} {value_of(metric, statistics_of(metric, naive, labels)):.4g} {metric.unit}".strip()
            for metric in (self.metric, *self.others)
        ]
        return (
            *super().notes(),
            f"the naive forecast, which repeats the last value, has {', '.join(values)} on the validation split",
        )

    @cached_property
    def _naive_errors(self) -> NDArray[np.float64]:
        """Mean absolute errors of the naive forecast on the training split, over all steps, one for each value of a label."""
        examples, parts = self._ready
        rows = parts["train"] if len(parts["train"]) else parts["calibration"]
        differences = np.abs(self._naive(examples)[rows].astype(np.float64) - examples.labels[rows])
        errors = np.broadcast_to(differences.mean(axis=(0, 1)), differences.shape[1:])
        if not (errors > 0).all():
            raise InputError(
                f"{examples.folder}: the last value is always an exact forecast of a column: mase has no unit (task.data.target)"
            )
        return errors.reshape(-1)

    @staticmethod
    def _naive(examples: Examples) -> NDArray[Any]:
        assert examples.naive is not None
        return examples.naive

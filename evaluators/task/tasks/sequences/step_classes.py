"""Sequence labels: each step of a sequence is of one class."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.sequences.macro_f1 import MacroF1
from evaluators.task.metrics.sequences.token_accuracy import SameTokens, TokenAccuracy
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError, InputError
from spaces.task_losses import IGNORED


class StepClassesTask(DataTask):
    """Classifies the steps of sequences; labels are `(n, steps)`, -1 where a step has none; outputs `(n, steps, n_classes)`.

    Agreement is the share of steps with the float model's class.

    Args:
        data: The loader.
        n_classes: Number of classes; None takes those of the data.
        time_first: Whether outputs are `(steps, n, n_classes)`; else they are `(n, steps, n_classes)`.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "token_accuracy": TokenAccuracy,
        "macro_f1": MacroF1,
    }
    loss = "tokens"

    def __init__(
        self, data: Data, n_classes: int | None = None, time_first: bool = False, **settings: Any
    ) -> None:
        super().__init__(data, **settings)
        if n_classes is not None and (type(n_classes) is not int or n_classes < 2):
            raise ConfigError(f"task.n_classes must be a whole number from 2 on, not {n_classes!r}")
        self._n_classes = n_classes
        self.output_batch_axis = 1 if time_first else 0
        self.agreement = SameTokens()

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return self._n_classes or int(self._examples.labels.max()) + 1

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric."""
        return factory(self.n_classes) if factory is MacroF1 else factory()

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the labels as int64, `(n, steps)`.

        Raises:
            InputError: The labels have another shape, are no classes, or a sequence has none.
        """
        labels = examples.labels
        if labels.dtype.kind not in "iu" or labels.ndim != 2 or not labels.shape[1]:
            raise InputError(
                f"{examples.folder}: labels must be whole numbers (n, steps), -1 where a step has none, not {labels.dtype} of "
                f"shape {labels.shape}"
            )
        classes = labels.astype(np.int64)
        n_classes = self._n_classes or int(classes.max()) + 1
        bad = (classes < IGNORED) | (classes >= n_classes)
        if bad.any():
            row, step = (int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"{examples.place(row)}: the class {classes[row, step]} of step {step} is neither -1 nor in 0..{n_classes - 1}"
            )
        empty = (classes == IGNORED).all(axis=1)
        if empty.any():
            raise InputError(f"{examples.place(int(np.argmax(empty)))}: no step has a label (all are -1)")
        return classes

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has other steps than the labels, or too few classes."""
        steps = self._examples.labels.shape[1]
        if output.ndim == 3 and output.shape[:2] == (n, steps) and output.shape[2] >= self.n_classes:
            return None
        return (
            f"the model yields {output.shape} for {n} examples, but the labels need ({n}, {steps}, {self.n_classes}): examples, "
            "steps, classes; task.time_first=true is for outputs (steps, n, classes)"
        )

"""Yes-or-no classes: one of them (binary), or several that may hold together (multi-label)."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.classes.auc import AUC
from evaluators.task.metrics.classes.average_precision import AveragePrecision
from evaluators.task.metrics.classes.f1 import F1
from evaluators.task.metrics.classes.same_decisions import SameDecisions
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import InputError
from spaces.stages.array_split import Indices


class YesNoTask(DataTask):
    """Answers one yes-or-no question or several about each example; labels are 0 or 1, `(n,)` or `(n, ...)`.

    A class that all examples have, or none, does not count in the metrics. The model yields a logit or a probability for each, or, for a single question, the logits of both answers.

    Args:
        data: The loader.
        threshold: Output above which an answer is yes: 0 for logits, 0.5 for probabilities.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {
        "auc": AUC, "average_precision": AveragePrecision, "f1": F1
    }  # fmt: skip

    def __init__(self, data: Data, threshold: float = 0.0, **settings: Any) -> None:
        super().__init__(data, **settings)
        self._threshold = threshold
        self.loss = "probability" if 0 < threshold < 1 else "binary"

    @property
    def agreement(self) -> Metric:  # type: ignore[override]
        """The share of equal answers."""
        return SameDecisions(self._threshold, two_classes=self._examples.labels.shape[1] == 1)

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns a metric; F1 decides by the threshold."""
        return factory(self._threshold) if factory is F1 else factory()

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the labels as float32, `(n, k)`.

        Raises:
            InputError: A label is not 0 or 1, or no class has examples of both kinds.
        """
        labels = examples.labels
        if labels.dtype.kind not in "iufb" or not labels.ndim:
            raise InputError(
                f"{examples.folder}: labels must be 0 or 1, (n,) or (n, ...), not {labels.dtype} of shape {labels.shape}"
            )
        answers = labels.reshape(len(labels), -1).astype(np.float32)
        bad = ~np.isin(answers, (0, 1)).all(axis=1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"{examples.place(row)}: the label {labels[row]} is not 0 or 1")
        if (answers == answers[0]).all():
            n_yes = np.unique(answers.sum(axis=0).astype(int)).tolist()
            which = "the class" if answers.shape[1] == 1 else f"each of the {answers.shape[1]} classes"
            raise InputError(
                f"{examples.folder}: {' or '.join(map(str, n_yes))} of {len(answers)} examples are of {which}; examples of both kinds "
                "are needed"
            )
        return answers

    def strata(self, labels: NDArray[Any]) -> Indices | None:
        """Returns the answer to a single question, or the number of the first yes."""
        first = np.argmax(labels, axis=1) + 1
        return np.where(labels.any(axis=1), first, 0).astype(np.int64)

    def misfit(self, output: NDArray[Any], n: int) -> str | None:
        """Returns why an output cannot be judged: it has no value for each question."""
        wanted = self._examples.labels.shape[1]
        size = output.size // max(n, 1)
        if output.ndim and len(output) == n and (size == wanted or (wanted == 1 and size == 2)):
            return None
        return f"the model yields {output.shape} for {n} examples, but labels answer {wanted} yes-or-no questions"

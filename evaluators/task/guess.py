"""Whether a network tells more of the labels than a guess that is the same for all examples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import sign_of
from evaluators.task.statistics.scores import statistics_of, value_of
from evaluators.task.tasks.task import Task
from spaces.errors import EvaluationError

GUESSED = "no better than a guess that is the same for all examples"
"""What the remark says; a health check of the report looks for it."""


def guess_note(task: Task, outputs: Any, labels: NDArray[Any]) -> str | None:
    """Returns a remark on a network that is no better than a guess; None if it is, or if no guess is known.

    The guess is the most frequent class, or what `Task.guess_error` takes. Labels in another order, another scaling or another layout
    of the inputs than those of the training are the usual reason.

    Args:
        task: The task.
        outputs: The uncompressed network's on the validation split.
        labels: Those of the split.
    """
    try:
        guess = _frequent_class(task, outputs, labels)
        if guess is None:
            return None
        own = value_of(task.metric, statistics_of(task.metric, outputs, labels))
    except EvaluationError:  # of a metric that has no value there
        return None
    if sign_of(task.metric) * (own - guess) > 0:
        return None
    own_text, guess_text = (f"{value:.4g} {task.metric.unit}".rstrip() for value in (own, guess))
    return (
        f"the float model's {task.metric.name} on validation, {own_text}, is {GUESSED} ({guess_text}): are the labels, their order, the scaling "
        "and the layout of inputs those that it was trained with?"
    )


def _frequent_class(task: Task, outputs: Any, labels: NDArray[Any]) -> float | None:
    """Returns the metric of the most frequent class, else of the task's own guess; None if there is neither."""
    are_classes = labels.ndim == 1 and labels.dtype.kind in "iu" and getattr(outputs, "ndim", 0) == 2
    if task.whole_outputs or not are_classes or not (labels >= 0).any():
        return task.guess_error()
    most = int(np.bincount(labels[labels >= 0]).argmax())
    if most >= outputs.shape[1]:
        return None
    guesses = np.zeros(outputs.shape, np.float32)
    guesses[:, most] = 1.0
    return value_of(task.metric, statistics_of(task.metric, guesses, labels))

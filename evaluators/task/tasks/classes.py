"""Classification of the examples of any loader."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import Data, Examples
from evaluators.task.metrics.classes.macro_f1 import MacroF1
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.data_task import DataTask
from spaces.errors import ConfigError, InputError, unknown_name
from spaces.stages.array_split import Indices


class ClassesTask(DataTask):
    """Tells classes apart. Labels are whole numbers from 0 on, or names; the network has an output for each class.

    Args:
        data: The loader.
        classes: Names of the classes in the order of the network's outputs; None takes those that occur, sorted, or numbers as
            they are.
        n_classes: Number of classes, where numbers are labels and some classes may have no examples; None takes those of the
            data, each of which must have one.
        **settings: Those of `DataTask`.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]] = {"top1": Top1, "macro_f1": MacroF1}
    whole_outputs: ClassVar[bool] = False

    def __init__(
        self,
        data: Data,
        classes: Sequence[Any] | None = None,
        n_classes: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        if n_classes is not None and (n_classes < 2 or classes is not None):
            raise ConfigError(
                f"task.n_classes must be at least 2, and not be given beside task.classes, but is {n_classes}"
            )
        self._n_classes = n_classes
        self._found_names: tuple[str, ...] = ()
        self._classes = None if classes is None else tuple(str(name) for name in classes)
        if self._classes is not None and len({*self._classes}) != len(self._classes):
            raise ConfigError(f"task.classes names a class twice: {list(self._classes)}")

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        """Number of classes: of the names, or one more than the highest number that occurs."""
        if self._classes is not None:
            return len(self._classes)
        return self._n_classes or int(self._examples.labels.max()) + 1

    def class_names(self) -> tuple[str, ...]:
        """Returns `classes`, or the names that occur, or those that the loader gives."""
        return self._classes or self._found_names or super().class_names()

    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the classes' numbers, `(n,)` int64. Raises InputError if a label is no class."""
        if examples.labels.dtype.kind not in "iufb":
            self._found_names = tuple(sorted({*map(_text, examples.labels.reshape(-1).tolist())}))
        return class_numbers(examples, self._classes, self._n_classes)

    def strata(self, labels: NDArray[Any]) -> Indices | None:
        """Returns the classes."""
        return labels


def class_numbers(
    examples: Examples, names: Sequence[str] | None = None, n_classes: int | None = None
) -> NDArray[np.int64]:
    """Returns each example's class as a number from 0 on, `(n,)`.

    Args:
        examples: With labels `(n,)`: whole numbers, or names.
        names: The classes' names in order; None takes those that occur, sorted, or numbers as they are.
        n_classes: Number of classes, where some of them may have no examples; None takes those that occur.

    Raises:
        InputError: A label is missing, no whole number from 0 on, none of `names`, or not below `n_classes`; there is only one
            class, or a class below the highest has no examples.
    """
    labels = examples.labels
    flat = labels.reshape(-1) if labels.size == len(labels) else labels
    if flat.ndim != 1 or flat.dtype.kind not in "iufbUO":
        raise InputError(
            f"{examples.folder}: labels must be one class for each example, not {labels.dtype} of shape {labels.shape}"
        )
    if names is None and flat.dtype.kind in "iufb":
        numbers = _whole(flat, examples, n_classes)
    else:
        numbers = _named(flat, examples, names)
    if numbers.min() == numbers.max():
        raise InputError(f"{examples.folder}: all {len(numbers)} examples are of one class")
    absent = np.setdiff1d(np.arange(numbers.max()), numbers)
    if names is None and n_classes is None and len(absent):
        raise InputError(
            f"{examples.folder}: class {absent[0]} has no examples; task.n_classes says how many classes there are, if that is right"
        )
    return numbers


def _whole(labels: NDArray[Any], examples: Examples, n_classes: int | None) -> NDArray[np.int64]:
    values = labels.astype(np.float64)
    bad = ~np.isfinite(values) | (values < 0) | (values != np.floor(values))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{examples.place(row)}: the label {labels[row]} is no class: whole numbers from 0 on, or names, are needed "
            "(task.classes lists the classes in the order of the network's outputs)"
        )
    numbers = values.astype(np.int64)
    if n_classes is not None and numbers.max() >= n_classes:
        row = int(np.argmax(numbers >= n_classes))
        raise InputError(f"{examples.place(row)}: the class {labels[row]} is outside 0..{n_classes - 1}")
    return numbers


def _named(labels: NDArray[Any], examples: Examples, names: Sequence[str] | None) -> NDArray[np.int64]:
    texts = [_text(label) for label in labels.tolist()]
    if "" in texts:
        raise InputError(f"{examples.place(texts.index(''))}: the class is missing")
    known = {name: i for i, name in enumerate(sorted({*texts}) if names is None else names)}
    for row, text in enumerate(texts):
        if text not in known:
            raise InputError(f"{examples.place(row)}: {unknown_name('class', text, known, 'task.classes')}")
    return np.array([known[text] for text in texts], np.int64)


def _text(label: object) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)

"""The base class of tasks whose data come from any loader."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Metric
from evaluators.task.data.data import CONFIG_PATH, Data, Examples
from evaluators.task.data.splits import carve, carve_groups, check_sizes, mixed
from evaluators.task.data.time_order import in_order
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import ConfigError, InputError, unknown_name
from spaces.stages.array_split import Indices
from spaces.stages.inputs import Inputs

Size = int | float
NAMES = ("test", "validation", "calibration", "train")


class DataTask(Task):
    """Divides a loader's examples into splits, checks the labels, and offers metrics by name.

    A subclass states `metrics` and `checked`.

    Args:
        data: The loader.
        root: File or folder that it reads.
        metric: Name of the metric to search by, one of `metrics`, or a metric; None is the first of them.
        also: Further metrics to report; None takes the other ones of `metrics`.
        calibration: Examples in the calibration split, or their share of all, below 1. With groups, sizes count groups.
        validation: Likewise, for the search.
        test: Likewise, not used by the search; the remaining examples are for training.
        split_seed: Seed of the division.
        output: Name of the model's output that is judged, or names of several.

    Attributes:
        metrics: The metrics of the task by name.
    """

    metrics: ClassVar[Mapping[str, Callable[..., Metric]]]
    whole_outputs: ClassVar[bool] = True
    data_settings: ClassVar[str] = CONFIG_PATH

    def __init__(
        self,
        data: Data,
        root: str | None = None,
        metric: Any = None,
        also: Sequence[Any] | None = None,
        calibration: Size = 0.1,
        validation: Size = 0.2,
        test: Size = 0.2,
        split_seed: int = 0,
        output: str | Sequence[str] | None = None,
    ) -> None:
        if not isinstance(data, Data):
            raise ConfigError(f"task.data must name a loader in `_target_`, not {data!r}")
        self._data, self._root = data, None if root is None else Path(root).expanduser()
        self.output = output
        self._asked = {"test": test, "validation": validation, "calibration": calibration, "train": None}
        self._split_seed = split_seed
        first = next(iter(self.metrics))
        self._metric = first if metric is None else metric
        others = [name for name in self.metrics if name != self._metric] if also is None else also
        for where, name in (("task.metric", self._metric), *(("task.also", name) for name in others)):
            if isinstance(name, str) and name not in self.metrics:
                raise ConfigError(unknown_name("metric", name, self.metrics, where))
        self._also = tuple(others)

    @property
    def metric(self) -> Metric:  # type: ignore[override]
        """The metric to search by."""
        return self._named(self._metric)

    @property
    def others(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """Further metrics that are reported."""
        return tuple(self._named(name) for name in self._also)

    @property
    def input_shape(self) -> tuple[int, ...] | Mapping[str, tuple[int, ...]]:  # type: ignore[override]
        """Shape of one input, or shapes by name."""
        examples, _ = self._ready
        inputs, _ = next(iter(examples.split.batches(1, 1)))
        return _shape(inputs)

    @abstractmethod
    def checked(self, examples: Examples) -> NDArray[Any]:
        """Returns the labels as the metrics take them, `(n, ...)`.

        Raises:
            InputError: A label is wrong; the message names the example's place: `examples.place(row)`.
        """

    def labelled(self, examples: Examples) -> Examples:
        """Returns the examples with labels as the metrics take them; a task whose labels stay on disk overrides it.

        Raises:
            InputError: A label is wrong.
        """
        return examples.labelled(self.checked(examples))

    def strata(self, labels: NDArray[Any]) -> Indices | None:
        """Returns the classes by which splits are balanced, `(n,)`; None without."""
        return None

    def classes_of(self, examples: Examples) -> Indices | None:
        """Returns `strata` of all labels; a task whose labels stay on disk overrides it."""
        return self.strata(examples.labels)

    def made(self, factory: Callable[..., Metric]) -> Metric:
        """Returns one of `metrics`; a task whose metrics need settings overrides it."""
        return factory()

    def splits(self) -> Splits:
        """Loads the data and returns the four disjoint splits.

        Raises:
            InputError: A file is missing, damaged or of another format, or a label is wrong.
            ConfigError: More examples are asked for than there are.
        """
        examples, parts = self._ready
        return Splits(**{name: examples.split.subset(rows) for name, rows in parts.items()})

    def groups(self) -> Mapping[str, NDArray[Any]]:
        """Returns for each split the group of each example, if the loader says that they come in groups."""
        groups, (_, parts) = self._examples.groups, self._ready
        return {} if groups is None else {name: groups[rows] for name, rows in parts.items()}

    def class_names(self) -> tuple[str, ...]:
        """Returns the names that the loader gives, if it does."""
        return tuple(self._examples.classes)

    def preparation(self) -> str:
        """Returns what the loader says."""
        return self._data.preparation()

    @cached_property
    def _ready(self) -> tuple[Examples, dict[str, Indices]]:
        """The examples as the network takes them, and the rows of each split."""
        parts = self._divided(self._examples)
        return self._data.fitted(self._examples, parts["train"]), parts

    @cached_property
    def _examples(self) -> Examples:
        found = self._data.read(self._root)
        if not len(found.split):
            raise InputError(f"{found.folder} has no examples")
        return self.labelled(found)

    def _named(self, metric: Any) -> Metric:
        made: Metric = self.made(self.metrics[metric]) if isinstance(metric, str) else metric
        return made

    def _divided(self, examples: Examples) -> dict[str, Indices]:
        fixed = dict(examples.parts or {})
        taken = np.concatenate([*fixed.values(), np.empty(0, np.int64)]).astype(np.int64)
        left = np.setdiff1d(np.arange(len(examples.split)), taken)
        asked = {name: size for name, size in self._asked.items() if name not in fixed}
        strata = self.classes_of(examples)
        if examples.spans is not None:
            return {**fixed, **self._by_time(examples, left, asked, strata)}
        if examples.groups is not None:
            groups = examples.groups
            check_groups(groups, {**fixed, "the rest": left} if fixed else {}, examples)
            return {**fixed, **self._by_group(groups[left], left, asked, strata)}
        counts = counts_of(asked, len(left))
        parts = carve(len(left), counts, None if strata is None else strata[left], self._split_seed)
        return {**fixed, **{name: left[rows] for name, rows in parts.items()}}

    def _by_time(
        self, examples: Examples, rows: Indices, asked: Mapping[str, Size | None], strata: Indices | None
    ) -> dict[str, Indices]:
        assert examples.spans is not None
        counts = counts_of(asked, len(rows))
        check_sizes(len(rows), counts)
        parts = in_order(examples.spans[rows], counts, examples.gap)
        for name, part in parts.items():
            if not len(part) and name != "train":
                raise ConfigError(
                    f"task.{name}={asked[name]}: none of its examples is left, since examples of one split must end before those "
                    "of the next begin: the split must be larger, or windows shorter"
                )
        classes = np.zeros(len(examples.split), np.int64) if strata is None else strata
        return {name: mixed(rows[part], classes, self._split_seed) for name, part in parts.items()}

    def _by_group(
        self, groups: NDArray[Any], rows: Indices, asked: Mapping[str, Size | None], strata: Indices | None
    ) -> dict[str, Indices]:
        n_groups = len(np.unique(groups))
        classes = None if strata is None else strata[rows]
        counts = counts_of(asked, n_groups)
        parts = carve_groups(groups, counts, classes, self._split_seed, "examples come in groups")
        return {name: rows[part] for name, part in parts.items()}


def check_groups(groups: NDArray[Any], fixed: Mapping[str, Indices], examples: Examples) -> None:
    """Raises InputError if the data put examples of one group into two splits."""
    seen: dict[Any, str] = {}
    for part, rows in fixed.items():
        for row in rows.tolist():
            group = groups[row]
            other = seen.setdefault(group, part)
            if other != part:
                raise InputError(
                    f"{examples.place(row)}: group {group} is in the splits {other} and {part}; what is learned of it in one "
                    "would be tested in the other"
                )


def counts_of(asked: Mapping[str, Size | None], n: int) -> dict[str, int | None]:
    """Returns sizes as numbers of examples; a share gives at least one."""
    counts: dict[str, int | None] = {}
    for name, size in asked.items():
        if isinstance(size, float) and not size.is_integer():
            if not 0 < size < 1:
                raise ConfigError(f"task.{name} must be a number of examples or a share below 1, not {size}")
            counts[name] = max(1, round(size * n))
        else:
            counts[name] = int(size) if isinstance(size, float) else size
    return counts


def _shape(inputs: Inputs) -> tuple[int, ...] | Mapping[str, tuple[int, ...]]:
    if isinstance(inputs, Mapping):
        return {name: array.shape[1:] for name, array in inputs.items()}
    return inputs.shape[1:]

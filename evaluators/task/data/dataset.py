"""A user's own examples: any `torch.utils.data.Dataset`, or anything that can be iterated, of items (input, label)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Data, Examples, raised
from evaluators.task.data.named_split import NamedSplit
from evaluators.task.data.rows import RowWriter
from spaces.errors import ConfigError, InputError
from spaces.stages.array_split import ArraySplit, ragged
from spaces.units import parse_bytes

_ONE = ""  # the name of the only input


class DatasetData(Data):
    """Reads a user's datasets, item by item: `(input, label)`, or `(input, label, group)`.

    An input is a tensor, an array, an image or numbers, of one shape and type in all items, as the network takes it; or a mapping
    with such an input for each of several by name. A label is a number, a text or an array; arrays may differ in length.
    Inputs are kept in a file where they are many; labels stay in memory.

    Args:
        dataset: An object with `__len__` and `__getitem__`, or one that can be iterated, such as a generator.
        cache_dir: Where large inputs are kept.
        calibration: A dataset that is the calibration split as a whole; None takes that split from `dataset`.
        validation: Likewise, the validation split.
        test: Likewise, the test split.
        limit: Most items that are read of `dataset`, e.g. of a generator without an end; None reads all.
        memory_bytes: Size of the inputs up to which they stay in memory, e.g. `256 MiB`.

    Raises:
        ConfigError: A dataset is none, or a setting is out of range.
    """

    def __init__(
        self,
        dataset: Any,
        cache_dir: str,
        calibration: Any = None,
        validation: Any = None,
        test: Any = None,
        limit: int | None = None,
        memory_bytes: Any = "256 MiB",
    ) -> None:
        fixed = {"calibration": calibration, "validation": validation, "test": test}
        self._sets = {"dataset": dataset} | {name: own for name, own in fixed.items() if own is not None}
        for name, own in self._sets.items():
            _check_dataset(own, f"task.data.{name}")
        if limit is not None and limit < 1:
            raise ConfigError(f"task.data.limit must be null or at least 1, not {limit}")
        self._limit = limit
        self._folder = Path(cache_dir).expanduser()
        self._memory_bytes = parse_bytes(memory_bytes, "task.data.memory_bytes")

    def read(self, root: Path | None) -> Examples:
        """Returns the items of all datasets; they are read once.

        Raises:
            ConfigError: `root` is given.
            InputError: A dataset is empty or raises an exception, or an item is wrong; the message has its number.
        """
        if root is not None:
            raise ConfigError(
                f"task.root={root} is not used: the dataset reads its own files, so give it the folder as an argument "
                "(task.data.dataset.NAME)"
            )
        return self._examples

    @cached_property
    def _examples(self) -> Examples:
        reader = _Reader(self._folder, self._memory_bytes)
        counts: dict[str, int] = {}
        try:
            for name, own in self._sets.items():
                before = reader.n
                for item, where in _items(own, self._limit if name == "dataset" else None):
                    reader.add(item, where)
                counts[name] = reader.n - before
                if not counts[name]:
                    raise InputError(f"{_name(own)} (task.data.{name}) has no items")
            places = _Places([(_name(own), counts[name]) for name, own in self._sets.items()])
            return reader.examples(places, _parts(counts))
        finally:
            reader.discard()


class _Places(Sequence[str]):
    """Where each example is: its dataset and its number there."""

    def __init__(self, sets: Sequence[tuple[str, int]]) -> None:
        self._sets = sets

    def __len__(self) -> int:
        return sum(n for _, n in self._sets)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        for name, n in self._sets:
            if row < n:
                return _place(name, row)
            row -= n
        raise IndexError


class _Reader:
    """Gathers items, and checks that they are alike."""

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self._folder, self._memory_bytes = folder, memory_bytes
        self.n = 0
        self._first: dict[str, NDArray[Any]] = {}
        self._writers: dict[str, RowWriter] = {}
        self._labels: list[NDArray[Any]] = []
        self._groups: list[Any] = []

    def add(self, item: Any, where: str) -> None:
        """Adds an item. Raises InputError if it is none, or unlike the first."""
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            held = f" of {len(item)} parts" if isinstance(item, tuple | list) else ""
            raise InputError(
                f"{where}: an item must be (input, label) or (input, label, group), not {type(item).__name__}{held}"
            )
        inputs, label, *group = item
        self._add_inputs(inputs, where)
        self._add_label(label, where)
        if self.n and bool(group) != bool(self._groups):
            has, had = ("a group", "none") if group else ("no group", "one")
            raise InputError(f"{where}: the item has {has}, but the first item has {had}")
        if group:
            self._groups.append(_group(group[0], where))
        self.n += 1

    def examples(self, places: Sequence[str], parts: Mapping[str, NDArray[np.int64]]) -> Examples:
        """Returns all items."""
        labels = _joined(self._labels)
        splits = {name: ArraySplit(writer.rows(), labels) for name, writer in self._writers.items()}
        split = splits[_ONE] if _ONE in splits else NamedSplit(splits)
        groups = np.asarray(self._groups) if self._groups else None
        return Examples(split, groups, places, parts or None, "task.data.dataset")

    def discard(self) -> None:
        """Deletes unfinished files."""
        for writer in self._writers.values():
            writer.discard()

    def _add_inputs(self, inputs: Any, where: str) -> None:
        named = inputs if isinstance(inputs, Mapping) else {_ONE: inputs}
        arrays = {str(name): _input(value, _what(str(name)), where) for name, value in named.items()}
        if not self._first:
            if not arrays:
                raise InputError(f"{where}: the mapping of inputs is empty")
            self._first = arrays
            share = self._memory_bytes // len(arrays)
            self._writers = {name: RowWriter(a, self._folder, share) for name, a in arrays.items()}
        if arrays.keys() != self._first.keys():
            raise InputError(
                f"{where}: the item has {_names(arrays)}, but the first one has {_names(self._first)}"
            )
        for name, array in arrays.items():
            first = self._first[name]
            for kind in ("shape", "dtype"):
                is_, was = getattr(array, kind), getattr(first, kind)
                if is_ != was:
                    raise InputError(
                        f"{where}: {_what(name)} has the {'type' if kind == 'dtype' else kind} {is_}, but in the first item {was}"
                    )
            self._writers[name].add(array)

    def _add_label(self, label: Any, where: str) -> None:
        array = _array(label, "the label", where)
        if array.dtype.kind not in "iufbU":
            raise InputError(
                f"{where}: the label must be a number, a text or an array of numbers, not {type(label).__name__}"
            )
        if self._labels and (array.dtype.kind == "U") != (self._labels[0].dtype.kind == "U"):
            kinds = ["a text" if a.dtype.kind == "U" else "of numbers" for a in (array, self._labels[0])]
            raise InputError(f"{where}: the label is {kinds[0]}, but in the first item {kinds[1]}")
        if self._labels and array.ndim != self._labels[0].ndim:
            first = self._labels[0]
            raise InputError(
                f"{where}: the label has {array.ndim} axes, shape {array.shape}, but in the first item {first.ndim}, shape "
                f"{first.shape}; an empty one needs its axes, too, e.g. (0, 5)"
            )
        self._labels.append(array)


def _check_dataset(dataset: Any, where: str) -> None:
    """Raises ConfigError if an object has no items."""
    if hasattr(dataset, "batch_sampler"):
        raise ConfigError(f"{where} must be a dataset of single examples, not a DataLoader of batches")
    if isinstance(dataset, str | bytes | Mapping) or not (
        hasattr(dataset, "__iter__") or (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"))
    ):
        raise ConfigError(
            f"{where} must name in `_target_` a dataset with __len__ and __getitem__, or one that can be iterated, not "
            f"{type(dataset).__name__}"
        )


def _items(dataset: Any, limit: int | None) -> Iterator[tuple[Any, str]]:
    """Yields items and where they are. Raises InputError if the dataset raises an exception."""
    name = _name(dataset)
    iterator: Iterator[Any] | None = None
    done = 0
    while limit is None or done < limit:
        where = _place(name, done)
        try:
            if iterator is None:
                iterator = iter(dataset) if hasattr(dataset, "__iter__") else _by_number(dataset)
            item = next(iterator)
        except StopIteration:
            return
        except Exception as error:  # of the user's code
            raise InputError(f"{where}: {raised(error, __file__)}") from error
        yield item, where
        done += 1


def _by_number(dataset: Any) -> Iterator[Any]:
    for number in range(len(dataset)):
        yield dataset[number]


def _name(dataset: Any) -> str:
    if isinstance(dataset, Iterator) and hasattr(dataset, "__qualname__"):
        return str(dataset.__qualname__)  # of a generator
    return f"{type(dataset).__module__}.{type(dataset).__qualname__}"


def _place(name: str, number: int) -> str:
    return f"{name}, item {number}"


def _parts(counts: Mapping[str, int]) -> dict[str, NDArray[np.int64]]:
    """Returns the rows of those splits that have datasets of their own."""
    ends = np.cumsum(list(counts.values()))
    return {
        name: np.arange(end - n, end)
        for (name, n), end in zip(counts.items(), ends, strict=True)
        if name != "dataset"
    }


def _array(value: Any, what: str, where: str) -> NDArray[Any]:
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor, perhaps of a type that numpy lacks
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()
        return np.asarray(value)
    except Exception as error:  # of any package's array
        raise InputError(f"{where}: {what} is no array: {raised(error, __file__)}") from error


def _input(value: Any, what: str, where: str) -> NDArray[Any]:
    array = _array(value, what, where)
    if array.dtype.kind not in "iufb":
        raise InputError(f"{where}: {what} must be numbers, not {type(value).__name__} of type {array.dtype}")
    if array.dtype.kind != "f":
        return array
    if not np.isfinite(array).all():
        raise InputError(f"{where}: {what} holds values that are not finite")
    return array.astype(np.float32, copy=False)


def _group(value: Any, where: str) -> Any:
    array = _array(value, "the group", where)
    if array.ndim or array.dtype.kind not in "iuU":
        raise InputError(f"{where}: the group must be a whole number or a text, not {value!r}")
    return array.item()


def _joined(labels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Returns labels as one array, or as objects where their shapes differ."""
    if len({label.shape for label in labels}) == 1:
        return np.stack(labels)
    dtype = np.result_type(*{label.dtype for label in labels if label.size} or {labels[0].dtype})
    return ragged(label.astype(dtype) for label in labels)


def _what(name: str) -> str:
    return f"the input {name}" if name else "the input"


def _names(arrays: Iterable[str]) -> str:
    names = [name for name in arrays if name]
    return f"the inputs {', '.join(names)}" if names else "one input without a name"

"""Arrays in an `.npz` file: examples of one input or of several, labels of any shape, and groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import read_npz
from evaluators.task.data.data import CONFIG_PATH, Data, Examples, needed_root
from evaluators.task.data.named_split import NamedSplit
from evaluators.task.data.splits import Normalise, Unscaled
from spaces.errors import ConfigError, InputError, unknown_name
from spaces.models.checkpoint import check_shape, check_shapes
from spaces.stages.array_split import ArraySplit
from spaces.stages.pixels import Layout
from spaces.task_losses import IGNORED

_DEFAULTS: Mapping[str, Any] = {
    "x": None, "example_shape": None, "layout": "NCHW", "scale": 1.0, "mean": (0.0,), "std": (1.0,)
}  # fmt: skip
_HINT = ". {where}.x names another array; for several inputs {where}.input_shape={{NAME: [...], OTHER: [...]}} names them all"
_MOST_EXACT = 2**24  # whole numbers up to which float32 represents all


class NpzData(Data):
    """Reads the arrays of a file.

    `x`, `example_shape`, `layout`, `scale`, `mean` and `std` hold for the examples of every input, or are mappings with a value
    for each input by name.

    Args:
        x: Name of the array of examples, `(n, ...)`, channels last; None is `x`, or the input's name if there are several.
        y: Name of the array of labels, `(n, ...)`; None says that there are none.
        group: Name of an array `(n,)` with the group of each example, e.g. a person; None without.
        input_shape: Shapes by name, for a model with several inputs; one shape, or None, for one input.
        example_shape: Shape to which each example is reshaped first, channels last; None keeps the stored shape.
        layout: `NCHW` (channels first, for any number of axes) or `NHWC` (as stored).
        scale: Factor on raw values.
        mean: Mean of scaled values, one for all or one per channel.
        std: Standard deviation, likewise.
        test_root: A second file that is the test split as a whole; None carves the test split from the first.
        where: Config path of the section that states these, for messages.
    """

    def __init__(
        self,
        x: str | Mapping[str, str] | None = None,
        y: str | None = "y",
        group: str | None = None,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        example_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        layout: Layout | Mapping[str, Layout] = "NCHW",
        scale: float | Mapping[str, float] = 1.0,
        mean: Sequence[float] | Mapping[str, Sequence[float]] = (0.0,),
        std: Sequence[float] | Mapping[str, Sequence[float]] = (1.0,),
        test_root: str | None = None,
        where: str = CONFIG_PATH,
    ) -> None:
        settings = {
            "x": x, "example_shape": example_shape, "layout": layout, "scale": scale, "mean": mean, "std": std
        }  # fmt: skip
        shapes = {"x": None} if input_shape is None else check_shapes(input_shape, f"{where}.input_shape")
        self._several = input_shape is not None and isinstance(shapes, Mapping)
        named: Mapping[str, Any] = shapes if isinstance(shapes, Mapping) else {"x": shapes}
        self._columns = {
            name: _column(name, shape, _settings_of(name, named, settings, where), self._several, where)
            for name, shape in named.items()
        }
        names_one = self._several or x is not None
        self._hint = "" if names_one else _HINT.format(where=where)
        self._y, self._group = y, group
        self._test_root = None if test_root is None else Path(test_root).expanduser()

    def read(self, root: Path | None) -> Examples:
        """Returns all examples.

        Raises:
            InputError: The file is missing, damaged, lacks an array, or its arrays have unequal lengths.
        """
        path = needed_root(root, "the .npz file")
        files = [path] if self._test_root is None else [path, self._test_root]
        read = [self._read(file) for file in files]
        first = read[0]
        if len(read) == 1:
            return first
        n, n_test = (len(examples.split) for examples in read)
        return Examples(
            _joined([examples.split for examples in read]),
            None if first.groups is None else np.concatenate([e.groups for e in read]),
            [*(first.place(i) for i in range(n)), *(read[1].place(i) for i in range(n_test))],
            {"test": np.arange(n, n + n_test)},
            str(path),
        )

    def _read(self, path: Path) -> Examples:
        split = self.split_of(path)
        return Examples(split, self.groups_of(path, len(split)), folder=str(path))

    def split_of(self, path: Path) -> ArraySplit | NamedSplit:
        """Returns the examples of one file. Raises InputError if it is missing, damaged, or does not match the config."""
        keys = [column.key for column in self._columns.values()]
        labels, *arrays = self._labels_and_arrays(path, keys)
        for key, array in zip(keys, arrays, strict=True):
            if len(array) != len(labels):
                other = f"{keys[0]} has" if self._y is None else f"{self._y} has"
                what = "examples" if self._y is None else "labels"
                raise InputError(f"{path}: {key} has {len(array)} examples, but {other} {len(labels)} {what}")
        parts = {
            name: column.split(raw, labels, path)
            for (name, column), raw in zip(self._columns.items(), arrays, strict=True)
        }
        return NamedSplit(parts) if self._several else next(iter(parts.values()))

    def _labels_and_arrays(self, path: Path, keys: Sequence[str]) -> list[NDArray[Any]]:
        if self._y is None:
            arrays = read_npz(path, *keys, hint=self._hint)
            return [np.full(len(arrays[0]) if arrays[0].ndim else 0, IGNORED), *arrays]
        *arrays, labels = read_npz(path, *keys, self._y, hint=self._hint)
        return [self.checked(labels, len(arrays[0]), path), *arrays]

    def checked(self, labels: NDArray[Any], n: int, path: Path) -> NDArray[Any]:
        """Returns the labels of `n` examples as splits have them, by default as they are stored; the task checks those."""
        del n, path
        return labels

    def groups_of(self, path: Path, n: int) -> NDArray[Any] | None:
        """Returns the group of each example of a file, `(n,)`; None without. Raises InputError if there is not one for each."""
        if self._group is None:
            return None
        (groups,) = read_npz(path, self._group)
        if groups.shape != (n,):
            raise InputError(f"{path}: {self._group} has shape {groups.shape}, but there are {n} labels")
        return groups


def _joined(splits: Sequence[Any]) -> ArraySplit | NamedSplit:
    first = splits[0]
    if isinstance(first, NamedSplit):
        names = first.parts
        return NamedSplit({name: _one([s.parts[name] for s in splits]) for name in names})
    return _one(splits)


def _one(splits: Sequence[ArraySplit]) -> ArraySplit:
    raw, labels = (np.concatenate([getattr(s, key) for s in splits]) for key in ("raw", "labels"))
    return ArraySplit(raw, labels, splits[0].transform)


@dataclass(frozen=True)
class Column:
    """How the examples of one input are read.

    Attributes:
        key: Name of their array.
        shape: Shape of one input; None takes that of the stored examples.
        example_shape: Shape to which each example is reshaped first; None keeps the stored shape.
        transform: Maps stored examples to inputs.
        setting: Config path of `shape`, for messages.
    """

    key: str
    shape: tuple[int, ...] | None
    example_shape: tuple[int, ...] | None
    transform: Normalise
    setting: str

    def split(self, raw: NDArray[Any], labels: NDArray[Any], path: Path) -> ArraySplit:
        """Returns the examples with the labels. Raises InputError if they do not match the config."""
        checked = self._checked(raw, path)
        return ArraySplit(checked, labels, self._exact(checked))

    def _exact(self, raw: NDArray[Any]) -> Normalise | Unscaled:
        """Returns the transform; one that keeps the type for whole numbers that float32 cannot represent."""
        wide = raw.dtype.kind in "iu" and raw.dtype.itemsize > 2 and np.abs(raw).max() > _MOST_EXACT
        return Unscaled(self.transform.layout) if wide and self.transform.is_identity else self.transform

    def _checked(self, raw: NDArray[Any], path: Path) -> NDArray[Any]:
        if raw.dtype.kind not in "uifb" or raw.ndim < (1 if self.shape == () else 2) or not len(raw):
            raise InputError(
                f"{path}: {self.key} must be numbers (n, ...), not {raw.dtype} of shape {raw.shape}"
            )
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            raise InputError(f"{path}: {self.key} holds values that are not finite")
        if self.example_shape is not None:
            if np.prod(self.example_shape) * len(raw) != raw.size:
                raise InputError(
                    f"{path}: examples of shape {raw.shape[1:]} cannot be brought to "
                    f"{self.transform.where}.example_shape={list(self.example_shape)}"
                )
            raw = raw.reshape(len(raw), *self.example_shape)
        shape = self.transform.shape(raw.shape[1:])
        if self.shape is not None and shape != self.shape:
            raise InputError(
                f"{path}: {self.key} gives inputs of shape {shape} under "
                f"{self.transform.where}.layout={self.transform.layout}, but "
                f"{self.setting} is {self.shape}"
            )
        return raw


def _column(
    name: str, shape: tuple[int, ...] | None, settings: Mapping[str, Any], several: bool, where: str
) -> Column:
    """Returns how one input is read.

    Args:
        name: The input's name.
        shape: Its shape; None takes that of the stored examples.
        settings: Its values of the settings: see `_settings_of`.
        several: Whether there are several inputs.
        where: Config path of the settings.
    """
    example_shape = settings["example_shape"]
    return Column(
        settings["x"] or name,
        shape,
        None if example_shape is None else check_shape(example_shape, f"{where}.example_shape"),
        Normalise(
            settings["scale"],
            tuple(settings["mean"]),
            tuple(settings["std"]),
            settings["layout"],
            where=where,
        ),
        f"{where}.input_shape.{name}" if several else f"{where}.input_shape",
    )


def _settings_of(
    name: str, shapes: Mapping[str, Any], settings: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Returns the settings of one input. Raises ConfigError if a setting names an input that there is not."""
    found = {}
    for key, value in settings.items():
        if not isinstance(value, Mapping):
            found[key] = value
            continue
        for other in value:
            if other not in shapes:
                raise ConfigError(unknown_name("input", other, shapes, f"{where}.{key}"))
        found[key] = value.get(name, _DEFAULTS[key])
    return found

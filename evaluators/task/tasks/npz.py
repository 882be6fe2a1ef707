"""Any arrays: examples `x` and labels `y` in one `.npz` file, or in one for training and one for the test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import read_npz
from evaluators.task.data.splits import Normalise, carve, check_labels, mixed
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import ConfigError, InputError
from spaces.models.checkpoint import check_shape
from spaces.stages.array_split import ArraySplit, Indices
from spaces.stages.pixels import Layout


class NpzTask(Task):
    """Classifies arrays.

    Args:
        root: The `.npz` file.
        input_shape: Shape of one model input.
        n_classes: Number of classes.
        test_root: A second file that is the test split as a whole; None carves the test split from `root`.
        x: Name of the array of examples, `(n, ...)`, channels last.
        y: Name of the array of labels, `(n,)`.
        group: Name of an array `(n,)` with the group of each example, e.g. a person; no group is divided between
            splits, and the sizes count groups. None divides by examples.
        example_shape: Shape to which each example is reshaped first, channels last; None keeps the stored shape.
        layout: `NCHW` (channels first, for any number of axes) or `NHWC` (as stored).
        scale: Factor on raw values.
        mean: Mean of scaled values, one for all or one per channel.
        std: Standard deviation, likewise.
        calibration: Examples (or groups) in the calibration split.
        validation: Examples (or groups) in the validation split.
        test: Examples (or groups) in the test split; without effect if `test_root` is given. The remaining
            examples are for training.
        split_seed: Seed of the division.
    """

    def __init__(
        self,
        root: str,
        input_shape: Sequence[int],
        n_classes: int,
        test_root: str | None = None,
        x: str = "x",
        y: str = "y",
        group: str | None = None,
        example_shape: Sequence[int] | None = None,
        layout: Layout = "NCHW",
        scale: float = 1.0,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        calibration: int = 100,
        validation: int = 200,
        test: int = 200,
        split_seed: int = 0,
    ) -> None:
        self.input_shape = check_shape(input_shape, "task.input_shape")
        self.n_classes = n_classes
        self.metric = Top1()
        self._root = Path(root).expanduser()
        self._test_root = None if test_root is None else Path(test_root).expanduser()
        self._x, self._y, self._group = x, y, group
        self._example_shape = (
            None if example_shape is None else check_shape(example_shape, "task.example_shape")
        )
        self._transform = Normalise(scale, tuple(mean), tuple(std), layout)
        held_out = {} if self._test_root else {"test": test}
        self._sizes = {**held_out, "validation": validation, "calibration": calibration, "train": None}
        self._split_seed = split_seed

    def splits(self) -> Splits:
        """Loads the arrays.

        Raises:
            InputError: A file is missing, damaged or of another format, or does not match the config.
            ConfigError: More examples are asked for than there are.
        """
        whole = self._read(self._root)
        parts = {name: whole.subset(rows) for name, rows in self._divide(whole.labels).items()}
        if self._test_root is not None:
            parts["test"] = self._read(self._test_root)
        return Splits(**parts)

    def _divide(self, labels: Indices) -> dict[str, Indices]:
        if self._group is None:
            return carve(len(labels), self._sizes, labels, self._split_seed)
        (groups,) = read_npz(self._root, self._group)
        if groups.shape != labels.shape:
            raise InputError(
                f"{self._root}: {self._group} has shape {groups.shape}, but there are {len(labels)} labels"
            )
        names, group_indices = np.unique(groups, return_inverse=True)
        try:
            parts = carve(len(names), self._sizes, None, self._split_seed)
        except ConfigError as error:
            raise ConfigError(f"{error} (task.group={self._group}: sizes count groups)") from error
        # any contiguous run of a part is to have all groups and classes in proportion
        strata = group_indices.reshape(-1) * self.n_classes + labels
        rows = {part: np.flatnonzero(np.isin(group_indices, chosen)) for part, chosen in parts.items()}
        return {part: mixed(part_rows, strata, self._split_seed) for part, part_rows in rows.items()}

    def _read(self, path: Path) -> ArraySplit:
        raw, labels = read_npz(path, self._x, self._y)
        raw = self._check_examples(raw, path)
        return ArraySplit(raw, check_labels(labels, len(raw), self.n_classes, path), self._transform)

    def _check_examples(self, raw: NDArray[Any], path: Path) -> NDArray[Any]:
        if raw.dtype.kind not in "uif" or raw.ndim < 2 or not len(raw):
            raise InputError(
                f"{path}: {self._x} must be numbers (n, ...), not {raw.dtype} of shape {raw.shape}"
            )
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            raise InputError(f"{path}: {self._x} holds values that are not finite")
        if self._example_shape is not None:
            if np.prod(self._example_shape) * len(raw) != raw.size:
                raise InputError(
                    f"{path}: examples of shape {raw.shape[1:]} cannot be brought to "
                    f"task.example_shape={list(self._example_shape)}"
                )
            raw = raw.reshape(len(raw), *self._example_shape)
        shape = self._transform.shape(raw.shape[1:])
        if shape != self.input_shape:
            raise InputError(
                f"{path}: {self._x} gives inputs of shape {shape} under task.layout={self._transform.layout}, but "
                f"task.input_shape is {self.input_shape}"
            )
        return raw

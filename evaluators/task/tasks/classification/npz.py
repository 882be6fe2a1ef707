"""Any arrays: examples `x` and labels `y` in one `.npz` file, or in one for training and one for the test."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from evaluators.task.data.npz import NpzData
from evaluators.task.data.splits import carve, carve_groups, check_labels
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import InputError
from spaces.models.checkpoint import check_shapes
from spaces.stages.array_split import Indices
from spaces.stages.pixels import Layout


class NpzTask(Task):
    """Classifies arrays.

    `x`, `example_shape`, `layout`, `scale`, `mean` and `std` hold for the examples of every input, or are mappings with a value
    for each input by name.

    Args:
        root: The `.npz` file.
        input_shape: Shape of one model input; for a model with several inputs, shapes by the inputs' names.
        n_classes: Number of classes.
        test_root: A second file that is the test split as a whole; None carves the test split from `root`.
        x: Name of the array of examples, `(n, ...)`, channels last; None is `x`, or the input's name if there are several.
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
        output: Name of the model's output that is judged; None takes the first, or the only one whose shape fits.
        metric: A metric of classes; None is top-1 accuracy.
    """

    n_classes: int

    def __init__(
        self,
        root: str,
        input_shape: Sequence[int] | Mapping[str, Sequence[int]],
        n_classes: int,
        test_root: str | None = None,
        x: str | Mapping[str, str] | None = None,
        y: str = "y",
        group: str | None = None,
        example_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        layout: Layout | Mapping[str, Layout] = "NCHW",
        scale: float | Mapping[str, float] = 1.0,
        mean: Sequence[float] | Mapping[str, Sequence[float]] = (0.0,),
        std: Sequence[float] | Mapping[str, Sequence[float]] = (1.0,),
        calibration: int = 100,
        validation: int = 200,
        test: int = 200,
        split_seed: int = 0,
        output: str | None = None,
        metric: Any = None,
    ) -> None:
        self.input_shape = check_shapes(input_shape, "task.input_shape")
        self.n_classes = n_classes
        self.metric = Top1() if metric is None else metric
        self.output = output
        self._root = Path(root).expanduser()
        self._test_root = None if test_root is None else Path(test_root).expanduser()
        self._group = group
        self._data = _Classified(
            n_classes, x, y, group, input_shape, example_shape, layout, scale, mean, std, where="task"
        )
        held_out = {} if self._test_root else {"test": test}
        self._sizes = {**held_out, "validation": validation, "calibration": calibration, "train": None}
        self._split_seed = split_seed
        self._groups: dict[str, NDArray[Any]] = {}

    def groups(self) -> Mapping[str, NDArray[Any]]:
        """Returns for each split the group of each example, if `group` names them."""
        return self._groups

    def splits(self) -> Splits:
        """Loads the arrays.

        Raises:
            InputError: A file is missing, damaged or of another format, or does not match the config.
            ConfigError: More examples are asked for than there are.
        """
        whole = self._data.split_of(self._root)
        groups = self._data.groups_of(self._root, len(whole))
        rows = self._divide(whole.labels, groups)
        parts = {name: whole.subset(chosen) for name, chosen in rows.items()}
        of_parts = {} if groups is None else {name: groups[chosen] for name, chosen in rows.items()}
        if self._test_root is not None:
            parts["test"] = self._data.split_of(self._test_root)
            with suppress(InputError):  # a file for the test alone need not have groups
                of_test = self._data.groups_of(self._test_root, len(parts["test"]))
                of_parts |= {} if of_test is None else {"test": of_test}
        self._groups = of_parts
        return Splits(**parts)

    def _divide(self, labels: Indices, groups: NDArray[Any] | None) -> dict[str, Indices]:
        if groups is None:
            return carve(len(labels), self._sizes, labels, self._split_seed)
        return carve_groups(groups, self._sizes, labels, self._split_seed, f"task.group={self._group}")


class _Classified(NpzData):
    """Arrays with one class for each example.

    Args:
        n_classes: Number of classes.
        *settings: Those of `NpzData`.
        **more: Likewise.
    """

    def __init__(self, n_classes: int, *settings: Any, **more: Any) -> None:
        super().__init__(*settings, **more)
        self._n_classes = n_classes

    def checked(self, labels: NDArray[Any], n: int, path: Path) -> Indices:
        """Returns the classes, `(n,)` int64. Raises InputError if they are none."""
        return check_labels(labels, n, self._n_classes, path)

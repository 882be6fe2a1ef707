"""CIFAR-10 (Krizhevsky 2009): `.npz` files, or the original python or binary version, unpacked or not."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import read_bytes, read_npz, read_tar, unpickle_plain
from evaluators.task.data.splits import Normalise, carve, check_labels
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import InputError
from spaces.stages.array_split import ArraySplit

BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
IMAGE_BYTES = 3 * 32 * 32

Data = tuple[NDArray[np.uint8], NDArray[np.int64]]


class Cifar10Task(Task):
    """Classifies 32x32 colour images into ten classes.

    The test split is the whole published test set, or the part that `validate_on=test` leaves; the others are carved from the
    training images.

    Args:
        root: A folder with `test.npz` and `train*.npz` (keys `x` (n, 32, 32, 3) uint8 and `y`), or with the original
            archive or its content; or the archive itself.
        calibration: Examples in the calibration split.
        validation: Examples in the validation split; what is left of the training images is for training.
        split_seed: Seed of the division.
        mean: Mean per channel of inputs in [0, 1].
        std: Standard deviation per channel.
        validate_on: The published set from which the validation split is taken. A network that was trained on all training
            images fits them too well for them to show how much accuracy a compressed network loses: `test` takes images of
            the published test set instead, and leaves the others as test split.
        output: Name of the model's output that is judged; None takes the first, or the only one whose shape fits.
        metric: A metric of classes; None is top-1 accuracy.
    """

    n_classes: int

    def __init__(
        self,
        root: str,
        calibration: int = 10_000,
        validation: int = 4_000,
        split_seed: int = 0,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        validate_on: Literal["train", "test"] = "train",
        output: str | None = None,
        metric: Any = None,
    ) -> None:
        self.input_shape = (3, 32, 32)
        self.n_classes = 10
        self.metric = Top1() if metric is None else metric
        self.output = output
        self._root = Path(root).expanduser()
        self._sizes = {"validation": validation, "calibration": calibration, "train": None}
        self._validate_on = validate_on
        self._split_seed = split_seed
        self._transform = Normalise(1 / 255, tuple(mean), tuple(std))
        self._transform.shape((32, 32, 3))

    def splits(self) -> Splits:
        """Loads the images.

        Raises:
            InputError: A file is missing, damaged or of another format.
            ConfigError: More examples are asked for than there are.
        """
        (x, y), (x_test, y_test) = read_cifar10(self._root)
        train_set, test_set = ArraySplit(x, y, self._transform), ArraySplit(x_test, y_test, self._transform)
        if self._validate_on == "train":
            return Splits(test=test_set, **self._carved(train_set, self._sizes))
        validation = self._sizes["validation"]
        held_out = self._carved(test_set, {"validation": validation, "test": len(y_test) - (validation or 0)})
        sizes = {name: size for name, size in self._sizes.items() if name != "validation"}
        return Splits(**held_out, **self._carved(train_set, sizes))

    def _carved(self, split: ArraySplit, sizes: Mapping[str, int | None]) -> dict[str, ArraySplit]:
        parts = carve(len(split), sizes, split.labels, self._split_seed)
        return {name: split.subset(rows) for name, rows in parts.items()}


def read_cifar10(root: Path) -> tuple[Data, Data]:
    """Reads training and test images, `(n, 32, 32, 3)` uint8, with labels `(n,)`.

    Raises:
        InputError: There are no files of CIFAR-10, or a file is damaged.
    """
    if (root / "test.npz").is_file():
        files = sorted(root.glob("train*.npz"))
        if not files:
            raise InputError(f"{root} has test.npz but no train*.npz")
        return _join([_from_npz(f) for f in files]), _from_npz(root / "test.npz")
    for names, decode in (([*BATCHES, "test_batch"], _from_python), (_binary_names(), _from_binary)):
        for place, contents in _places(root, names):
            missing = [n for n in (names[0], names[-1]) if n not in contents]
            if missing:
                raise InputError(f"{place} lacks {missing[0]}")
            decoded = [decode(contents[n], f"{place}: {n}") for n in names if n in contents]
            return _join(decoded[:-1]), decoded[-1]
    raise InputError(
        f"{root}: no CIFAR-10 found (task.root). Expected: test.npz and train*.npz, or cifar-10-batches-py, "
        "cifar-10-python.tar.gz, cifar-10-batches-bin or cifar-10-binary.tar.gz"
    )


def _binary_names() -> list[str]:
    return [*(f"{name}.bin" for name in BATCHES), "test_batch.bin"]


def _places(root: Path, names: list[str]) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """Yields each folder or archive with original files, and the content of these files by name."""
    for folder in (root, root / "cifar-10-batches-py", root / "cifar-10-batches-bin"):
        contents = {n: read_bytes(folder / n) for n in names if (folder / n).is_file()}
        if contents:
            yield folder, contents
    archives = (
        [root] if root.is_file() else [root / f"cifar-10-{kind}.tar.gz" for kind in ("python", "binary")]
    )
    for archive in archives:
        contents = read_tar(archive, names) if archive.is_file() else {}
        if contents:
            yield archive, contents


def _from_npz(path: Path) -> Data:
    x, y = read_npz(path, "x", "y")
    if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3):
        raise InputError(f"{path}: x must be uint8 of shape (n, 32, 32, 3), not {x.dtype} {x.shape}")
    return x, check_labels(y, len(x), 10, path)


def _from_python(data: bytes, where: str) -> Data:
    content: Any = unpickle_plain(data, where)
    if not isinstance(content, dict) or not {"data", "labels"} <= set(content):
        raise InputError(f"{where} holds no 'data' and 'labels'; is it another version of CIFAR?")
    x, labels = content["data"], content["labels"]
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != IMAGE_BYTES:
        raise InputError(f"{where}: 'data' must be bytes of shape (n, {IMAGE_BYTES})")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise InputError(f"{where}: 'labels' must be a list of whole numbers")
    return _images(x), check_labels(np.asarray(labels, np.int64), len(x), 10, where)


def _from_binary(data: bytes, where: str) -> Data:
    if not data or len(data) % (1 + IMAGE_BYTES):
        raise InputError(f"{where} is truncated: {len(data)} bytes are no multiple of {1 + IMAGE_BYTES}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    return _images(rows[:, 1:]), check_labels(rows[:, 0], len(rows), 10, where)


def _images(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Converts rows of all red, then all green, then all blue bytes to images `(n, 32, 32, 3)`."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _join(parts: list[Data]) -> Data:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])

"""IDX files, as MNIST and Fashion-MNIST are published in (LeCun et al. 1998; Xiao et al. 2017, arXiv 1708.07747)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.archives import read_bytes
from evaluators.task.data.splits import Normalise, carve, check_labels
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import InputError
from spaces.models.checkpoint import check_shape
from spaces.stages.array_split import ArraySplit

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


class IdxTask(Task):
    """Grey images in the four files of MNIST, compressed or not.

    The test split is the whole `t10k` set; the others are carved from the training images.

    Args:
        root: The folder with the four files.
        calibration: Examples in the calibration split.
        validation: Examples in the validation split; what is left of the training images is for training.
        split_seed: Seed of the division.
        n_classes: Number of classes.
        input_shape: Shape of one image as the model takes it: channel, height, width.
        mean: Mean of inputs in [0, 1].
        std: Standard deviation.
        output: Name of the model's output that is judged; None takes the first, or the only one whose shape fits.
        metric: A metric of classes; None is top-1 accuracy.
    """

    n_classes: int

    def __init__(
        self,
        root: str,
        calibration: int = 2_000,
        validation: int = 4_000,
        split_seed: int = 0,
        n_classes: int = 10,
        input_shape: Sequence[int] = (1, 28, 28),
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        output: str | None = None,
        metric: Any = None,
    ) -> None:
        self.input_shape = check_shape(input_shape, "task.input_shape")
        self.n_classes = n_classes
        self.metric = Top1() if metric is None else metric
        self.output = output
        self._root = Path(root).expanduser()
        self._sizes = {"validation": validation, "calibration": calibration, "train": None}
        self._split_seed = split_seed
        self._transform = Normalise(1 / 255, tuple(mean), tuple(std))

    def splits(self) -> Splits:
        """Loads the images.

        Raises:
            InputError: A file is missing, damaged or of another format.
            ConfigError: More examples are asked for than there are.
        """
        whole = self._read(TRAIN_IMAGES, TRAIN_LABELS)
        parts = carve(len(whole), self._sizes, whole.labels, self._split_seed)
        carved = {name: whole.subset(rows) for name, rows in parts.items()}
        return Splits(test=self._read(TEST_IMAGES, TEST_LABELS), **carved)

    def _read(self, images_name: str, labels_name: str) -> ArraySplit:
        images, labels = _find(self._root, images_name), _find(self._root, labels_name)
        raw = read_idx(images)[..., None]  # (n, height, width, 1)
        shape = self._transform.shape(raw.shape[1:])
        if shape != self.input_shape:
            raise InputError(
                f"{images} holds inputs of shape {shape}, but task.input_shape is {self.input_shape}"
            )
        if not len(raw):
            raise InputError(f"{images} holds no images")
        return ArraySplit(
            raw, check_labels(read_idx(labels), len(raw), self.n_classes, labels), self._transform
        )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes: two zero bytes, a type code, the number of axes, big-endian sizes, data.

    Raises:
        InputError: The file is missing, truncated, or not an IDX file of bytes.
    """
    data = read_bytes(path)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise InputError(f"{path} is no IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    whole_header = len(data) >= start
    shape = tuple(np.frombuffer(data[4:start], ">u4").tolist()) if whole_header else ()
    if not whole_header or len(data) - start != math.prod(shape):
        raise InputError(
            f"{path} is truncated or damaged: its size does not fit the shape {shape} in its header"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(root: Path, name: str) -> Path:
    """Returns the path of a file under one of its usual names: `-idx3-` or `.idx3-`, with `.gz` or without."""
    names = [n + end for n in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    path = next((root / n for n in names if (root / n).is_file()), None)
    if path is None:
        raise InputError(f"{root}: there is no {name} or {name}.gz (task.root)")
    return path

"""scikit-learn's 8x8 digits: 1,797 images that come with the library, so nothing needs to be downloaded."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.splits import Normalise, carve, check_labels
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.stages.array_split import ArraySplit


class DigitsTask(Task):
    """Recognises handwritten digits of 8x8 pixels, 17 grey levels, scaled to [0, 1].

    Args:
        calibration: Examples in the calibration split.
        validation: Examples in the validation split.
        test: Examples in the test split; what is left is for training.
        split_seed: Seed of the division.
    """

    n_classes: int

    def __init__(
        self, calibration: int = 200, validation: int = 300, test: int = 400, split_seed: int = 0
    ) -> None:
        self.input_shape = (1, 8, 8)
        self.n_classes = 10
        self.metric = Top1()
        self._sizes = {"test": test, "validation": validation, "calibration": calibration, "train": None}
        self._split_seed = split_seed

    def splits(self) -> Splits:
        """Loads the images.

        Raises:
            ConfigError: More examples are asked for than there are.
        """
        rows = _rows()
        raw = rows[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8)
        labels = check_labels(rows[:, -1], len(raw), self.n_classes, "digits")
        whole = ArraySplit(raw, labels, Normalise(scale=1 / 16, white=16))
        parts = carve(len(raw), self._sizes, labels, self._split_seed)
        return Splits(**{name: whole.subset(rows) for name, rows in parts.items()})


def _rows() -> NDArray[np.int64]:
    """Returns scikit-learn's file of digits, `(1797, 65)`: the pixels, then the label.

    The file is read without importing scikit-learn, which takes seconds.
    """
    found = find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(file, dtype=np.int64, delimiter=",")

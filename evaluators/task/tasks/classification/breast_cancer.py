"""The Wisconsin breast cancer data (Street, Wolberg, Mangasarian 1993) that come with scikit-learn: 569 tumours, 30 features each."""

import numpy as np

from evaluators.task.data.splits import Normalise, carve
from evaluators.task.metrics.top1 import Top1
from evaluators.task.tasks.task import Splits, Task
from spaces.errors import ConfigError
from spaces.stages.array_split import ArraySplit

MALIGNANT = 1


class BreastCancerTask(Task):
    """Classifies tumours as malignant (label 1, the positive class: 212) or benign (label 0: 357).

    scikit-learn has the labels reversed. Features are standardised with mean and deviation of the train split
    alone, so that no information of the other splits leaks into inputs.

    Args:
        calibration: Cases in the calibration split.
        validation: Cases in the validation split.
        test: Cases in the test split; what is left is for training.
        split_seed: Seed of the division.
    """

    n_classes: int

    def __init__(
        self, calibration: int = 39, validation: int = 170, test: int = 160, split_seed: int = 0
    ) -> None:
        self.input_shape = (30,)
        self.n_classes = 2
        self.metric = Top1()
        self._sizes = {"test": test, "validation": validation, "calibration": calibration, "train": None}
        self._split_seed = split_seed

    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the two classes."""
        return ("benign", "malignant") if MALIGNANT else ("malignant", "benign")

    def splits(self) -> Splits:
        """Loads the cases.

        Raises:
            ConfigError: More cases are asked for than there are, or fewer than 2 are left for training.
        """
        from sklearn.datasets import load_breast_cancer

        raw, benign = load_breast_cancer(return_X_y=True)
        labels = np.where(benign == 1, 1 - MALIGNANT, MALIGNANT).astype(np.int64)
        parts = carve(len(raw), self._sizes, labels, self._split_seed)
        if len(parts["train"]) < 2:
            raise ConfigError(
                f"task.calibration, task.validation and task.test leave {len(parts['train'])} of {len(raw)} cases for "
                "training; at least 2 are needed to standardise the features"
            )
        train = raw[parts["train"]]
        deviation = np.where(train.std(axis=0) > 0, train.std(axis=0), 1.0)
        transform = Normalise(1.0, tuple(train.mean(axis=0).tolist()), tuple(deviation.tolist()))
        whole = ArraySplit(raw, labels, transform)
        return Splits(**{name: whole.subset(rows) for name, rows in parts.items()})

"""Data that come with scikit-learn, so that nothing has to be downloaded."""

from pathlib import Path
from typing import Literal

import numpy as np

from evaluators.task.data.data import Data, Examples
from spaces.stages.array_split import ArraySplit

Name = Literal["diabetes", "linnerud", "wine", "iris", "breast_cancer", "digits"]


class SklearnData(Data):
    """One of scikit-learn's small tables; every column is scaled to mean 0 and deviation 1 over all rows.

    Args:
        dataset: `diabetes` (442 patients, 10 features, the progression after a year), `linnerud` (20 x 3, three numbers),
            `wine` (178 x 13, 3 classes), `iris` (150 x 4, 3 classes), `breast_cancer` (569 x 30, 1 benign), `digits` (1,797
            images of shape (1, 8, 8), in [0, 1], 10 classes).
    """

    def __init__(self, dataset: Name) -> None:
        self._dataset = dataset

    def read(self, root: Path | None) -> Examples:
        """Returns the rows of the table, `(n, columns)` float32."""
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{self._dataset}")(return_X_y=True)
        if self._dataset == "digits":
            images = (x / 16).reshape(-1, 1, 8, 8).astype(np.float32)
            return Examples(ArraySplit(images, np.asarray(y)), folder=self._dataset)
        spread = x.std(axis=0)
        scaled = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return Examples(ArraySplit(scaled.astype(np.float32), np.asarray(y)), folder=self._dataset)

"""Agreement of two models that tell classes apart."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric


class SameClass(MeanMetric):
    """The share of examples whose largest output is the other model's; of equal outputs the first counts."""

    name = "agreement"
    unit = "%"
    scale = 100.0
    bounds = (0.0, 1.0)

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores `(n, n_outputs)` outputs against the other model's, `(n, n_outputs)`; returns `(n,)`, 0 or 1."""
        same: NDArray[np.float64] = (outputs.argmax(axis=1) == labels.argmax(axis=1)).astype(np.float64)
        return same

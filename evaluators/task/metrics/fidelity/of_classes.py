"""The share of classes that a network shares with the uncompressed one."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric


class FidelityOfClasses(MeanMetric):
    """The share of examples, or of their positions such as pixels, whose largest output is the uncompressed network's.

    Top-1 agreement (Stanton et al. 2021, "Does Knowledge Distillation Really Work?", arXiv 2106.05945, section 3).
    """

    name = "fidelity"
    unit = "%"
    scale = 100.0
    bounds = (0.0, 1.0)

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores `(n, n_classes, ...)` outputs against classes `(n, ...)`; returns `(n,)`; an output that is not finite is wrong."""
        same = (outputs.argmax(axis=1) == labels) & np.isfinite(outputs).all(axis=1)
        return np.asarray(same.reshape(len(outputs), -1).mean(axis=1), np.float64)

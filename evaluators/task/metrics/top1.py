"""Top-1 accuracy."""

import numpy as np
from numpy.typing import NDArray


class Top1:
    """The share of examples whose largest output is the label's; of equal outputs the first counts."""

    name = "top1"
    unit = "%"
    scale = 100.0

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores `(n, n_outputs)` outputs against `(n,)` labels; returns `(n,)`, 1 right, 0 wrong or not finite."""
        right = np.argmax(outputs, axis=1) == labels
        scores: NDArray[np.float64] = (right & np.isfinite(outputs).all(axis=1)).astype(np.float64)
        return scores

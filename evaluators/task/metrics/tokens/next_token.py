"""The share of tokens that a language model has first."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import SumMetric


class NextToken(SumMetric):
    """The share of tokens that are the most probable ones, over all examples; labels below 0 do not count."""

    name = "next_token"
    unit = "%"
    scale = 100.0

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, of logits `(b, steps, n_tokens)` and tokens `(b, steps)`, each example's hits and tokens, `(b, 2)`."""
        counted = labels >= 0
        hits = (outputs.argmax(axis=2) == labels) & counted
        return np.stack([hits.sum(axis=1), counted.sum(axis=1)], axis=1).astype(np.float64)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share, from the sums `(m, 2)`; NaN without tokens."""
        return np.asarray(np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1.0), np.nan))

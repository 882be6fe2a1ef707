"""Perplexity of a language model."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, SumMetric
from evaluators.task.metrics.tokens.log_shares import log_shares


class Perplexity(SumMetric):
    """The exponential of the mean negative log-likelihood, over all tokens of all examples; labels below 0 do not count."""

    name = "perplexity"
    direction: Direction = "minimize"

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, of logits `(b, steps, n_tokens)` and tokens `(b, steps)`, each example's sum in nats, and its tokens, `(b, 2)`."""
        found = np.empty((len(labels), 2))
        for row, (logits, tokens) in enumerate(zip(outputs, labels, strict=True)):
            counted = np.flatnonzero(tokens >= 0)
            logs = log_shares(logits[counted])[np.arange(len(counted)), tokens[counted]]
            found[row] = -logs.sum(), len(counted)
        return found

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the exponential of the mean, from the sums `(m, 2)`; NaN without tokens."""
        mean = np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1.0), np.nan)
        return np.asarray(np.exp(np.minimum(mean, 700.0)))  # of 700 nats the exponential is finite

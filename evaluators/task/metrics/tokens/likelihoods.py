"""Metrics of the log-likelihoods of a text's tokens."""

from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, SumMetric
from evaluators.task.metrics.tokens.perplexity import Perplexity


class LikelihoodPerplexity(Perplexity):
    """`Perplexity`, where a network's outputs have become the log-likelihoods of the labels."""

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, of log-likelihoods `(b, steps)` and tokens `(b, steps)`, each example's sum in nats, and its tokens, `(b, 2)`."""
        counted = labels >= 0
        nats = np.where(counted, -outputs, 0).sum(axis=1, dtype=np.float64)
        return np.stack([nats, counted.sum(axis=1)], axis=1)


class BitsPerByte(LikelihoodPerplexity):
    """Bits of the negative log-likelihood for each byte of the text, over all examples: comparable between tokenizers.

    The space that the tokenizer puts before a text is none of its bytes.

    Args:
        byte_counts: Bytes of each token.
    """

    name = "bits_per_byte"
    unit = "bits"
    direction: Direction = "minimize"

    def __init__(self, byte_counts: Sequence[int]) -> None:
        self._bytes = np.asarray(byte_counts, np.float64)

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, of log-likelihoods `(b, steps)` and tokens `(b, steps)`, each example's sum in nats, and its bytes, `(b, 2)`."""
        found = super().statistics(outputs, labels)
        found[:, 1] = np.where(labels >= 0, self._bytes[labels], 0).sum(axis=1) - 1
        return found

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns bits per byte, from the sums `(m, 2)`; NaN without bytes."""
        return np.asarray(np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1.0), np.nan) / log(2))


class EqualTokens(SumMetric):
    """The share of tokens that are the labels, over all examples; labels below 0 do not count.

    Args:
        name: Name of the metric: `next_token` where labels are the text's, `agreement` where they are the float network's best.
    """

    unit = "%"
    scale = 100.0

    def __init__(self, name: str = "next_token") -> None:
        self.name = name

    def statistics(self, outputs: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns, of tokens `(b, steps)` both, each example's equal ones and those that count, `(b, 2)`."""
        counted = labels >= 0
        return np.stack([((outputs == labels) & counted).sum(axis=1), counted.sum(axis=1)], axis=1).astype(
            np.float64
        )

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the share, from the sums `(m, 2)`; NaN without tokens."""
        return np.asarray(np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1.0), np.nan))

"""How far the next-token distributions of two models lie apart."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, MeanMetric
from evaluators.task.metrics.tokens.log_shares import log_shares


class Divergence(MeanMetric):
    """The Kullback-Leibler divergence of a model's next-token distributions from the other model's, mean over steps and examples."""

    name = "kl"
    unit = "nats"
    direction: Direction = "minimize"

    def per_example(self, outputs: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns, of logits `(b, steps, n_tokens)` and the other model's, `KL(other || model)` of each example, `(b,)`."""
        found = np.empty(len(outputs))
        for row, (logits, others) in enumerate(zip(outputs, labels, strict=True)):
            of_other = log_shares(others)
            found[row] = (np.exp(of_other) * (of_other - log_shares(logits))).sum(axis=-1).mean()
        return found

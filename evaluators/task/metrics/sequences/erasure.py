"""How stable the hypotheses are that a network gives for growing prefixes of a sequence, each anew (re-translation)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, SumMetric


class Erasure(SumMetric):
    """Normalized erasure: tokens that a longer prefix takes back, per token of the last hypothesis; 0 where none is.

    From one hypothesis to the next all tokens after their longest common prefix are erased (Arivazhagan et al. 2020,
    "Re-translation versus Streaming for Simultaneous Translation", arXiv 2004.03643). Sums are over all examples.
    """

    name = "erasure"
    direction: Direction = "minimize"

    def statistics(self, outputs: NDArray[Any], labels: Any) -> NDArray[np.float64]:
        """Returns the number of erased tokens and the length of the last hypothesis for each example, `(b, 2)`.

        Args:
            outputs: Token ids of the hypotheses by prefix, `(b, n_prefixes, steps)` whole numbers; a hypothesis ends before the
                first one below 0.
            labels: Not used.
        """
        del labels
        lengths = _leading(outputs >= 0)
        kept = _leading((outputs[:, 1:] == outputs[:, :-1]) & (outputs[:, 1:] >= 0))
        erased = (lengths[:, :-1] - kept).sum(axis=1)
        return np.stack([erased, lengths[:, -1]], axis=1).astype(np.float64)

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns erased tokens per token; no value where all last hypotheses are empty."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(sums[:, 0] / sums[:, 1])


def _leading(holds: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns for how many positions of the last axis a condition holds before it first fails."""
    return np.asarray(np.cumprod(holds, axis=-1, dtype=np.int64).sum(axis=-1))

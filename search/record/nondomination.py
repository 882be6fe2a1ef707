"""Which points no other one dominates."""

import numpy as np
from numpy.typing import NDArray


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which points no other one dominates `(n,)`; of equal points the first.

    Args:
        values: `(n, d)`, to be maximised; a point with NaN is dominated.
    """
    kept = np.zeros(len(values), dtype=np.bool_)
    left = np.flatnonzero(np.isfinite(values).all(axis=1))
    order = np.argsort(-_ranks(values[left]).sum(axis=1), kind="stable")
    left = left[order]  # none is dominated by a later one
    while len(left):
        best, left = left[0], left[1:]
        kept[best] = True
        left = left[(values[left] > values[best]).any(axis=1)]
    return kept


def _ranks(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Returns each value's rank on its axis `(n, d)`: a sum of ranks knows no units and no rounding."""
    ranks = [np.unique(column, return_inverse=True)[1] for column in values.T]
    return np.stack(ranks, axis=1) if ranks else np.zeros(values.shape, dtype=np.intp)

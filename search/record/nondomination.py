"""Finds the non-dominated points of a set."""

import numpy as np
from numpy.typing import NDArray


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns a mask of the non-dominated points `(n,)`; of equal points only the first is kept.

    Args:
        values: `(n, d)`, to be maximised; a point with a value that is not finite counts as dominated.
    """
    kept = np.zeros(len(values), dtype=np.bool_)
    remaining = np.flatnonzero(np.isfinite(values).all(axis=1))
    order = np.argsort(-_ranks(values[remaining]).sum(axis=1), kind="stable")
    remaining = remaining[order]  # no point is dominated by a later one
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept[best] = True
        remaining = remaining[(values[remaining] > values[best]).any(axis=1)]
    return kept


def _ranks(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Returns each value's rank on its axis `(n, d)`; sums of ranks do not depend on units or rounding."""
    ranks = [np.unique(column, return_inverse=True)[1] for column in values.T]
    return np.stack(ranks, axis=1) if ranks else np.zeros(values.shape, dtype=np.intp)

"""Scalarisation: combines predicted objectives and constraints into one score per candidate; higher is better."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_RHO = 0.05  # ParEGO's weight of the sum, which keeps weakly dominated candidates from having the best score


def joined(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Joins several objectives by an augmented Chebyshev norm with random weights (Knowles 2006, ParEGO, eq. 2).

    Args:
        predicted: `(n, n_objectives)`, higher is better.
        measured: `(n_measured, n_objectives)`: their range scales the objectives to [0, 1].
        rng: Draws the weights, uniformly from the simplex.

    Returns:
        `(n,)`; one objective is returned as it is.
    """
    if predicted.shape[1] == 1:
        return predicted[:, 0]
    rows = measured if len(measured) > 1 else predicted
    low, span = rows.min(axis=0), np.ptp(rows, axis=0)
    loss = (low + span - predicted) / np.where(span > 0, span, 1.0)
    weighted = loss * rng.dirichlet(np.ones(predicted.shape[1]))
    return np.asarray(-(weighted.max(axis=1) + _RHO * weighted.sum(axis=1)))


def infeasible_last(
    scores: NDArray[np.float64], excesses: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Returns scores with predicted violations of constraints below all others, ordered by violation.

    Args:
        scores: `(n,)`.
        excesses: Per constraint `(n,)` predictions of its excess, in units of its spread; <= 0 is feasible.
    """
    if not excesses:
        return scores
    broken = np.sum([np.maximum(excess, 0.0) for excess in excesses.values()], axis=0)
    return np.where(broken > 0, scores.min() - broken, scores)

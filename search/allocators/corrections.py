"""Corrections of predicted losses by real evaluations: a factor for each layer, and interactions of neighbouring layers.

Output errors of two layers add as vectors: the square of their sum has a mixed term, at most twice the geometric mean of the
two losses. One coefficient per pair, the correlation of the two errors, is learned from the residuals, and one factor per
layer, both by ridge regression; leave-one-out errors choose its strength, or no correction at all. Losses are corrected upwards
only: the next solution is the minimum over all allocations, and would be drawn to losses that are too low by chance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search.allocators.problem import Pair, Problem

Floats = NDArray[np.float64]
Observation = tuple[Mapping[str, int], float]
"""An allocation and its measured loss."""

MIN_OBSERVATIONS = 6
PENALTIES = (*np.geomspace(1e-2, 1e3, 11).tolist(), math.inf)
LEAST_FACTOR = 1.0  # of a layer's loss
_TINY = 1e-30


def corrected(problem: Problem, observations: Sequence[Observation], pairs: Sequence[Pair] = ()) -> Problem:
    """Returns the problem with losses that fit the observations better, in the observations' unit up to a constant.

    Args:
        problem: The problem with its predicted losses.
        observations: Measured losses; at least `MIN_OBSERVATIONS` are needed, otherwise nothing is corrected.
        pairs: Neighbouring layers, whose interaction is learned.
    """
    finite = [(widths, loss) for widths, loss in observations if math.isfinite(loss)]
    if len(finite) < MIN_OBSERVATIONS:
        return problem
    layers, alone = list(problem.losses), _table(problem, finite)
    mixed = [2 * np.sqrt(alone[:, layers.index(a)] * alone[:, layers.index(b)]) for a, b in pairs]
    factors = _fit(
        alone, np.array(mixed).reshape(len(pairs), len(finite)).T, np.array([loss for _, loss in finite])
    )
    return problem if factors is None else _rescaled(problem, pairs, factors)


def _table(problem: Problem, observations: Sequence[Observation]) -> Floats:
    """Returns the predicted loss of each layer in each observation, `(n_observations, n_layers)`."""
    return np.array(
        [
            [max(row[widths[layer]], 0.0) for layer, row in problem.losses.items()]
            for widths, _ in observations
        ]
    )


def _fit(alone: Floats, mixed: Floats, measured: Floats) -> Floats | None:
    """Returns the layers' factors, then the pairs' coefficients; None if the prediction does not rise with what is measured.

    Residuals are relative to the prediction, as errors grow with it.
    """
    predicted = alone.sum(axis=1)
    weights = 1 / (predicted + np.median(predicted) + _TINY)
    base = np.stack([np.ones_like(predicted), predicted], axis=1)
    offset, slope = np.linalg.lstsq(base * weights[:, None], measured * weights, rcond=None)[0]
    if slope <= 0:
        return None
    features = np.hstack([alone, mixed]) * weights[:, None]
    residuals = (measured - offset) * weights / slope - predicted * weights
    best = min(PENALTIES, key=lambda penalty: _left_out(features, residuals, penalty))
    changes = np.zeros(features.shape[1]) if best == math.inf else _ridge(features, best) @ residuals
    start = np.concatenate([np.ones(alone.shape[1]), np.zeros(mixed.shape[1])])
    return np.asarray((start + changes).clip(-1, None))


def _ridge(features: Floats, penalty: float) -> Floats:
    """Returns the matrix that maps residuals to coefficients; the penalty is relative to the features' mean square."""
    gram = features @ features.T
    strength = penalty * max(float(np.trace(gram)) / len(gram), _TINY)
    return np.asarray(features.T @ np.linalg.inv(gram + strength * np.eye(len(gram))))


def _left_out(features: Floats, residuals: Floats, penalty: float) -> float:
    """Returns the mean squared error of each observation's prediction from the others (Allen's PRESS)."""
    if penalty == math.inf:
        return float(np.mean(residuals**2))
    hat = features @ _ridge(features, penalty)
    return float(np.mean(((residuals - hat @ residuals) / np.maximum(1 - np.diag(hat), 1e-9)) ** 2))


def _rescaled(problem: Problem, pairs: Sequence[Pair], factors: Floats) -> Problem:
    layers = list(problem.losses)
    of_layer = dict(zip(layers, factors.clip(LEAST_FACTOR, None).tolist(), strict=False))
    losses = {
        layer: {w: loss * of_layer[layer] for w, loss in row.items()} for layer, row in problem.losses.items()
    }
    learned = dict(problem.pairs)
    for (a, b), coefficient in zip(pairs, factors[len(layers) :].clip(0, 1).tolist(), strict=True):
        if coefficient:
            learned[a, b] = {
                (v, w): 2 * coefficient * math.sqrt(max(x, 0.0) * max(y, 0.0))
                for v, x in problem.losses[a].items()
                for w, y in problem.losses[b].items()
                if x < math.inf and y < math.inf
            }
    return replace(problem, losses=losses, pairs=learned)

"""Corrections of predicted losses by observations."""

from itertools import pairwise

import numpy as np
import pytest

from search.allocators.corrections import MIN_OBSERVATIONS, corrected
from search.allocators.problem import Problem

LAYERS, WIDTHS = [f"layer{i}" for i in range(8)], (2, 4, 8)
LOSSES = {n: {w: 4.0 ** (2 - w) * (1 + i) for w in WIDTHS} for i, n in enumerate(LAYERS)}
PAIRS = list(pairwise(LAYERS))


def observed(n, true, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    drawn = [dict(zip(LAYERS, rng.choice(WIDTHS, len(LAYERS)).tolist(), strict=True)) for _ in range(n)]
    return [(widths, 5.0 + 3.0 * true(widths) * (1 + noise * rng.normal())) for widths in drawn]


def alone(widths):
    return sum(LOSSES[n][w] for n, w in widths.items())


def mixed(widths):
    """Returns the loss where errors of neighbouring layers are correlated."""
    return alone(widths) + sum(
        2 * 0.6 * np.sqrt(LOSSES[a][widths[a]] * LOSSES[b][widths[b]]) for a, b in PAIRS
    )


def error(problem, true, seed=9):
    """Returns the root mean squared relative error of predictions on other allocations, after the best scale."""
    others = observed(200, true, seed)
    predicted = np.array([problem.loss(widths) for widths, _ in others])
    measured = np.array([(loss - 5.0) / 3.0 for _, loss in others])
    ratio = measured / predicted
    return float(np.std(ratio) / np.mean(ratio))


def test_interactions_are_learned():
    before = Problem(LOSSES)
    after = corrected(before, observed(60, mixed), PAIRS)
    assert error(after, mixed) < 0.5 * error(before, mixed)
    assert np.mean([table[2, 2] for table in after.pairs.values()]) > 0


def test_a_layer_that_is_more_sensitive_than_predicted_gets_a_larger_loss():
    def true(widths):
        return alone(widths) + 3 * LOSSES["layer5"][widths["layer5"]]

    after = corrected(Problem(LOSSES), observed(60, true))
    factors = {n: after.losses[n][2] / LOSSES[n][2] for n in LAYERS}
    assert max(factors, key=factors.__getitem__) == "layer5"


def test_right_predictions_are_hardly_changed():
    after = corrected(Problem(LOSSES), observed(40, alone, noise=0.05), PAIRS)
    assert error(after, alone) < 0.05


@pytest.mark.parametrize(
    "observations",
    [
        observed(MIN_OBSERVATIONS - 1, mixed),
        [(widths, np.nan) for widths, _ in observed(20, mixed)],
        [(widths, -loss) for widths, loss in observed(20, mixed)],
    ],
    ids=["too few", "not finite", "falling"],
)
def test_nothing_is_learned_from_what_says_nothing(observations):
    problem = Problem(LOSSES)
    assert corrected(problem, observations, PAIRS) is problem

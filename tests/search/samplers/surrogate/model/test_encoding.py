import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from search.samplers.surrogate.model.encoding import Encoding

KINDS = {
    "x": FloatDistribution(0, 1),
    "y": FloatDistribution(1, 1000),
    "kind": CategoricalDistribution("abc"),
}


def candidates(n, seed, inactive=False):
    rng = np.random.default_rng(seed)
    found = [
        {"x": float(rng.uniform(0, 1)), "y": float(rng.uniform(1, 1000)), "kind": "abc"[rng.integers(3)]}
        for _ in range(n)
    ]
    for params in found[:3] if inactive else []:
        del params["y"]
    return found


@pytest.mark.parametrize("inactive", [False, True])
def test_weighted_distances_are_the_sum_over_the_axes(inactive):
    first, second = candidates(30, 0, inactive), candidates(40, 1, inactive)
    space = Encoding([*first, *second], KINDS)
    a, b = space.points(first), space.points(second)
    rates = np.random.default_rng(2).uniform(0, 2, (2, space.n_axes))
    wanted = sum(rates[:, axis, None, None] * space.distance(axis, a, b) for axis in range(space.n_axes))
    np.testing.assert_allclose(space.weighted(rates, a, b), wanted, atol=1e-12)
    np.testing.assert_allclose(space.weighted(rates, b, a), np.swapaxes(wanted, 1, 2), atol=1e-12)

"""Distances by how many of several like knobs have each value."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.samplers.surrogate.model.counts import like_knobs
from search.samplers.surrogate.model.encoding import Encoding
from search.samplers.surrogate.model.kernel import Block, Kernel, fitted

BLOCKS = [dict(zip(("b1", "b2", "b3"), blocks, strict=True)) for blocks in itertools.product("xyz", repeat=3)]


def test_like_knobs_differ_in_numbers_or_the_layer_and_have_equal_values():
    bits = [(int, 4), (int, 8)]
    values = {
        "block1_kernel": bits, "scheme": bits, "block2_kernel": bits, "block3_kernel": [(int, 4)], "quantize.bits": bits,
        "quantize.bits[layer1.conv]": bits, "quantize.bits[head]": bits[::-1],
    }  # fmt: skip
    assert like_knobs(values) == [(0, 2), (5, 6)]


def test_the_order_of_like_knobs_makes_no_difference():
    encoding = Encoding(BLOCKS)
    points = encoding.points(
        [
            {"b1": "x", "b2": "x", "b3": "y"},
            {"b1": "y", "b2": "x", "b3": "x"},
            {"b1": "z", "b2": "x", "b3": "x"},
        ]
    )
    assert encoding.counts.distance(points, points) == pytest.approx(
        np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]]) / 3
    )


def test_numbers_differ_by_their_mean_too():
    encoding = Encoding([{"n1": a, "n2": b} for a in (1, 2, 4) for b in (1, 2, 4)])
    points = encoding.points([{"n1": 1, "n2": 1}, {"n1": 2, "n2": 1}, {"n1": 4, "n2": 1}])
    near, far = encoding.counts.distance(points[:1], points[1:])[0]
    assert (near, far) == pytest.approx(((1 / 2 + 1 / 4) / 2, (1 / 2 + 1 / 2) / 2))


def test_a_space_without_like_knobs_has_no_counts():
    assert not Encoding([{"scheme": s, "bits": b} for s in "ab" for b in (4, 8)]).counts
    assert Encoding(BLOCKS).counts


@given(st.integers(0, 2**32 - 1))
def test_the_kernel_stays_positive_definite(seed):
    rng = np.random.default_rng(seed)
    some = [
        {f"n{i}": float(rng.choice([1, 2, 4, 8])) for i in range(3)} | dict(rng.choice(BLOCKS))
        for _ in range(12)
    ]
    for params in some[::4]:
        del params["n1"]
    encoding = Encoding([*some, *BLOCKS])
    points = encoding.points(some)
    distance = encoding.counts.distance(points, points)
    assert distance.min() >= 0
    assert distance.max() <= 1 + 1e-12
    assert np.diag(distance) == pytest.approx(np.zeros(len(some)))
    kernel = Kernel(encoding, 0.0, np.zeros(encoding.n_axes), counted=1.0)
    assert np.linalg.eigvalsh(kernel(points, points)).min() > -1e-9
    assert np.diag(kernel(points, points)) == pytest.approx(np.full(len(some), kernel.total))


def test_the_term_of_counts_is_fitted_where_only_counts_matter():
    encoding = Encoding(BLOCKS)
    points = encoding.points(BLOCKS[::2])
    counts = np.array([sum(value == "z" for value in params.values()) for params in BLOCKS[::2]], float)
    values = (counts - counts.mean()) / counts.std()
    n = len(values)
    kernel, _ = fitted(encoding, [Block(points, values, np.ones(n), np.zeros(n))], counted=True)
    assert kernel.counted > 10 * max(kernel.variance, kernel.additive)

"""Results of different models come onto one scale, and their order is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.knowledge.normalise import gaps, is_amount, ranks, relative, unit_of
from search.samplers.context import KnowledgeRow

VALUES = st.lists(st.integers(-100, 100).map(float), min_size=1, max_size=20)


def rows(values, baseline=None):
    return [KnowledgeRow("t", {"x": i}, v, baseline=baseline) for i, v in enumerate(values)]


@given(VALUES, st.booleans(), st.none() | st.just(50.0), st.floats(0.1, 10), st.integers(-50, 50))
def test_gaps(values, maximize, baseline, scale, shift):
    found = gaps(rows(values, baseline), maximize)
    assert found.min() >= 0
    assert found.max() <= 1
    sign = 1 if maximize else -1
    order = np.argsort(sign * np.array(values))
    assert np.all(np.diff(found[order]) <= 1e-12)  # better is never further away
    moved = [scale * v + shift for v in values]
    moved_baseline = None if baseline is None else scale * baseline + shift
    assert gaps(rows(moved, moved_baseline), maximize) == pytest.approx(found, abs=1e-6)


@given(VALUES, st.booleans())
def test_ranks(values, maximize):
    found = ranks(rows(values), maximize)
    sign = -1 if maximize else 1
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            assert (found[i] < found[j]) == (sign * a < sign * b)
    if len(values) > 1:
        assert found.mean() == pytest.approx(0.5)


def test_a_collapse_does_not_stretch_the_scale():
    found = gaps(rows([71.0, 70.0, 69.0, 68.0, 0.1, 0.1], baseline=72.0), True)
    assert found[0] < 0.5
    assert list(found[-2:]) == [1.0, 1.0]


def test_relative():
    assert relative("metric.top1", "%", 70.0, 72.0) == -2.0
    assert relative("metric.file_bytes", "bytes", 25.0, 100.0) == 0.25
    assert relative("metric.sqnr", "dB", 25.0, 20.0) == 5.0
    assert np.isnan(relative("cost.host.latency_ms", "ms", 1.0, 0.0))
    assert is_amount("cost.host.latency_ms", None)
    assert is_amount("metric.file_bytes", None)
    assert not is_amount("metric.top1", None)
    measured = [Measurement("top1", 1.0, "%", "measured")]
    assert unit_of("metric.top1", measured) == "%"
    assert unit_of("metric.top5", measured) is None

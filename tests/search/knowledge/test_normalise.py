"""Results relative to the float model's."""

import numpy as np
from hypothesis import strategies as st

from evaluators.base import Measurement
from search.knowledge.normalise import is_amount, relative, unit_of
from search.samplers.candidates.context import KnowledgeRow

VALUES = st.lists(st.integers(-100, 100).map(float), min_size=1, max_size=20)


def rows(values, baseline=None):
    return [KnowledgeRow("t", {"x": i}, v, baseline=baseline) for i, v in enumerate(values)]


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

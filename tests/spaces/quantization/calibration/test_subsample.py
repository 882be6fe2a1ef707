"""Subsampled histograms: exact tails, independent of batches and interruptions."""

import numpy as np
import pytest

from spaces.quantization.calibration import subsample as module
from spaces.quantization.calibration.histogram import Distribution
from spaces.quantization.calibration.histograms import Histograms
from spaces.quantization.calibration.subsample import SubsampledHistogram


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 5_000)
    monkeypatch.setattr(module, "CHUNK", 1_000)


def examples(kind, n=200, seed=0):
    values = np.random.default_rng(seed).standard_normal((n, 7, 53)).astype(np.float32)
    shapes = {
        "relu": np.maximum(values, 0),
        "signed": values,
        "positive": np.abs(values) + 1,
        "zero": 0 * values,
    }
    return shapes.get(kind, -np.maximum(values, 0))


def counted(values, cuts=()):
    found = SubsampledHistogram()
    for part in np.split(values, cuts):
        assert found.add(part)
    return found


KINDS = ("relu", "signed", "positive", "zero", "negative")


@pytest.mark.parametrize("kind", KINDS)
def test_batches_do_not_matter(kind):
    whole, parts = counted(examples(kind)), counted(examples(kind), (1, 13, 14, 15, 100, 100, 199))
    assert (whole.counted.counts == parts.counted.counts).all()
    assert whole.counted.zeros == parts.counted.zeros
    assert whole.bounds == parts.bounds


@pytest.mark.parametrize("kind", KINDS)
def test_extrema_and_tails_are_exact_and_the_rest_is_close(kind):
    values = examples(kind)
    exact, subsampled = Distribution(), counted(values)
    exact.add(values)
    found = subsampled.counted
    assert (found.low, found.high) == (exact.low, exact.high)
    n = found.counts.sum() + found.zeros
    assert n == pytest.approx(values.size, rel=0.01)
    edges = exact.width * (np.arange(len(exact.counts) + 1) - len(exact.counts) // 2)
    beyond = (edges[1:] <= subsampled.bounds[0]) | (edges[:-1] >= subsampled.bounds[1])
    assert (found.counts[beyond] == exact.counts[beyond]).all()
    gap = np.abs(np.cumsum(found.counts) - np.cumsum(exact.counts)) / values.size
    assert gap.max() < 0.03


def test_a_few_values_are_all_counted():
    values = examples("signed", n=10)
    exact, subsampled = Distribution(), counted(values)
    exact.add(values)
    assert subsampled.bounds is None
    assert (subsampled.counted.counts == exact.counts).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["relu", "signed"])
def test_values_that_are_not_finite_return_false(kind, value):
    values = examples(kind).copy()
    values[150, 3, 31] = value
    assert not SubsampledHistogram().add(values)


def test_a_new_extreme_far_into_the_split_is_counted_once():
    values = examples("relu").copy()
    values[190, 0, 5] = 100
    found = counted(values).counted
    assert found.high == 100
    assert found.histogram().counts[-1] == 1


@pytest.mark.parametrize("stop", [3, 14, 50, 120])
def test_resuming_a_pass(stop):
    batches = {name: examples(name) for name in KINDS}
    whole, first, second = (Histograms(KINDS, {}) for _ in range(3))
    whole.add(batches)
    first.add({name: values[:stop] for name, values in batches.items()})
    second.resume(first.moments(), first.histograms())
    second.add({name: values[stop:] for name, values in batches.items()})
    for wanted, found in ((whole.moments(), second.moments()), (whole.histograms(), second.histograms())):
        assert wanted.keys() == found.keys()
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)

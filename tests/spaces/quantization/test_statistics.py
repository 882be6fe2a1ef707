"""What calibration sees, and that it does so in parts, in bounded memory, and once."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.artifact import Artifact
from spaces.cache import Cache
from spaces.quantization import activations as running
from spaces.quantization.activations import activations
from spaces.quantization.statistics import (
    N_BINS,
    Moments,
    Statistics,
    Wanted,
    histogram_of,
    moments_of,
)
from spaces.stage import StageContext
from spaces.testing import noise_split

WANTED = Wanted(
    ("input", "stem_relu", "sum", "classifier_out"), (("input", 1), ("stem_relu", 1), ("flat", -1))
)
WANTED = Wanted((*WANTED.tensors, "flat"), WANTED.means)


@pytest.fixture
def whole(small, noise):
    """Every activation on every example, the way that does not scale."""
    batches = list(activations(small, WANTED.tensors, noise, len(noise)))
    return {tensor: np.concatenate([batch[tensor] for batch in batches]) for tensor in WANTED.tensors}


def test_the_output_is_the_models(small, noise, run, whole):
    assert np.array_equal(whole["input"], noise.inputs)
    assert whole["classifier_out"] == pytest.approx(run(small, noise.inputs), abs=1e-4)


def test_ranges_means_and_histograms_are_numpys(small, context, whole):
    found = Statistics(small, WANTED, 64, context)
    for tensor, values in whole.items():
        low, high = found.ranges()[tensor]
        assert (low, high) == (values.min(), values.max())
        counts, _ = np.histogram(values[values != 0].astype(np.float64), N_BINS, (low, high))
        histogram = found.histograms()[tensor]
        assert histogram.zeros == (values == 0).sum()
        assert histogram.counts.sum() + histogram.zeros == values.size
        assert np.abs(histogram.counts - counts).sum() <= 1e-3 * values.size + 2  # values on an edge
    assert found.means()["input"] == pytest.approx(whole["input"].mean(axis=(0, 2, 3), dtype=np.float64))
    assert found.means()["stem_relu"].shape == (8,)
    assert found.means()["flat"] == pytest.approx(whole["flat"].mean(axis=0, dtype=np.float64))


@given(st.lists(st.integers(1, 63), max_size=5))
def test_parts_merge_exactly(cuts):
    rng = np.random.default_rng(0)
    batch = {"a": np.maximum(rng.standard_normal((64, 3, 4)), 0).astype(np.float32)}
    wanted = Wanted(("a",), (("a", 1),))
    low, high = float(batch["a"].min()), float(batch["a"].max())
    parts = [{"a": p} for p in np.split(batch["a"], sorted(set(cuts)))]
    whole, merged = moments_of(batch, wanted), reduce(Moments.merge, [moments_of(p, wanted) for p in parts])
    assert (merged.low, merged.high, merged.sizes) == (whole.low, whole.high, whole.sizes)
    assert merged.sums[0] == pytest.approx(whole.sums[0], rel=1e-12)
    counts = sum(histogram_of(p["a"], low, high).counts for p in parts)
    assert np.array_equal(counts, histogram_of(batch["a"], low, high).counts)


def test_only_the_first_examples_are_used(small, context, noise):
    few = noise_split((3, 8, 8), 64)
    few.inputs[5:] = 100.0
    found = Statistics(small, WANTED, 5, StageContext(few, Cache()))
    assert found.ranges()["input"] == (noise.inputs[:5].min(), noise.inputs[:5].max())


def test_memory_is_bounded(small, monkeypatch):
    monkeypatch.setattr(running, "MOST_BATCH_BYTES", 20_000)
    split = noise_split((3, 8, 8), 300)
    batches = activations(small, ("input", "stem_relu", "depthwise_relu"), split, 300)
    sizes = [(len(batch["input"]), sum(v.nbytes for v in batch.values())) for batch in batches]
    assert sum(n for n, _ in sizes) == 300
    assert max(n_bytes for _, n_bytes in sizes) <= 20_000
    assert max(n for n, _ in sizes) > 1


def test_a_network_with_a_fixed_batch(small, noise, context):
    proto = small.proto()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7  # 64 is no multiple of it
    fixed = Artifact.onnx(proto, small.input)
    wanted, found = Statistics(small, WANTED, 64, context), Statistics(fixed, WANTED, 64, context)
    assert found.key != wanted.key
    for tensor, span in wanted.ranges().items():
        assert found.ranges()[tensor] == pytest.approx(span, rel=1e-5)


def test_the_cache_keeps_them_apart_and_across_processes(small, noise, tmp_path):
    cache = Cache(tmp_path)
    first = Statistics(small, WANTED, 64, StageContext(noise, cache))
    first.histograms()
    n_files = len(list(tmp_path.iterdir()))
    again = Statistics(small, WANTED, 64, StageContext(noise, Cache(tmp_path)))
    assert {t: h.counts.sum() for t, h in again.histograms().items()} == {
        t: h.counts.sum() for t, h in first.histograms().items()
    }
    assert len(list(tmp_path.iterdir())) == n_files == 2
    other = noise_split((3, 8, 8), 64, seed=1)
    keys = {
        first.key,
        Statistics(small, WANTED, 63, StageContext(noise, cache)).key,
        Statistics(small, WANTED, 64, StageContext(other, cache)).key,
        Statistics(small, Wanted(("input",)), 64, StageContext(noise, cache)).key,
    }
    assert len(keys) == 4

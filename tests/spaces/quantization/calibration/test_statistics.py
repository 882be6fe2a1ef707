"""Activation statistics: one pass, bounded memory, and no example twice."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.quantization.calibration import activations as running
from spaces.quantization.calibration import statistics as module
from spaces.quantization.calibration.activations import activations
from spaces.quantization.calibration.moments import ChannelSums
from spaces.quantization.calibration.statistics import Statistics, Wanted
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

MEANS = (("input", 1), ("stem_relu", 1), ("flat", -1))
WANTED = Wanted(("input", "stem_relu", "sum", "classifier_out", "flat"), MEANS)


@pytest.fixture
def whole(small, noise):
    """Every activation on every example, all in memory."""
    batches = list(activations(small, WANTED.tensors, noise, len(noise)))
    return {tensor: np.concatenate([batch[tensor] for batch in batches]) for tensor in WANTED.tensors}


@pytest.fixture
def passes(monkeypatch):
    """Records the numbers of examples per batch of each pass over the network."""
    sizes = []

    def recording(artifact, tensors, *arguments):
        sizes.append([])
        for batch in activations(artifact, tensors, *arguments):
            sizes[-1].append(len(batch["input"]))
            yield batch

    monkeypatch.setattr(module, "activations", recording)
    return sizes


def equal(a, b):
    pairs = [(a.histograms()[t], b.histograms()[t]) for t in WANTED.tensors]
    assert a.ranges() == b.ranges()
    assert all((x.zeros, x.width, x.first) == (y.zeros, y.width, y.first) for x, y in pairs)
    assert all(np.array_equal(x.counts, y.counts) for x, y in pairs)
    assert a.second_moments() == b.second_moments()
    for name in ("means", "channel_second_moments"):
        x, y = getattr(a, name)(), getattr(b, name)()
        assert all(np.array_equal(x[t], y[t]) for t in x)


def test_statistics_equal_numpys(small, context, whole):
    found = Statistics(small, WANTED, 64, context)
    for tensor, values in whole.items():
        assert found.ranges()[tensor] == (values.min(), values.max())
        histogram = found.histograms()[tensor]
        inner = histogram.edges[1:-1]
        some = values[values != 0]
        sides = [np.searchsorted(inner, some, side=side) for side in ("left", "right")]
        bins = np.where(some < 0, *sides)  # a value on an edge belongs to the bin further from 0
        counts = np.bincount(bins, minlength=len(inner) + 1)
        assert histogram.zeros == (values == 0).sum()
        assert np.array_equal(histogram.counts, counts)
        assert found.second_moments()[tensor] == pytest.approx(
            np.square(values, dtype=np.float64).mean(), rel=1e-5
        )
    wide = {tensor: values.astype(np.float64) for tensor, values in whole.items()}
    for tensor, axes in (("input", (0, 2, 3)), ("stem_relu", (0, 2, 3)), ("flat", 0)):
        assert found.means()[tensor] == pytest.approx(wide[tensor].mean(axis=axes), abs=1e-6)
        squares = found.channel_second_moments()[tensor]
        assert squares == pytest.approx((wide[tensor] ** 2).mean(axis=axes), rel=1e-5)


@given(st.lists(st.integers(1, 63), max_size=5), st.sampled_from([1, -1, None]), st.integers(1, 3))
@settings(deadline=None)
def test_sums_do_not_depend_on_batches(cuts, axis, n_axes):
    values = np.random.default_rng(0).standard_normal((64, 3, 4, 5)[: n_axes + 1]).astype(np.float32)
    whole, parts = ChannelSums.empty(axis), ChannelSums.empty(axis)
    whole.add(values)
    for part in np.split(values, sorted(set(cuts))):
        parts.add(part)
    assert np.array_equal(whole.sums, parts.sums)
    assert np.array_equal(whole.squares, parts.squares)
    assert whole.n_values == parts.n_values
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    wide = values.astype(np.float64)
    if axis is not None:
        assert whole.sums / whole.n_values == pytest.approx(wide.mean(axis=others), abs=1e-6)
    assert whole.squares / whole.n_values == pytest.approx(np.ravel((wide**2).mean(axis=others)), rel=1e-5)


def test_a_tensor_with_one_value_per_example():
    sums = ChannelSums.empty(None)
    sums.add(np.array([1.0, 2.0, 6.0], np.float32))
    assert (sums.squares.tolist(), sums.n_values) == ([41.0], 3)


@pytest.mark.parametrize("split", [None, noise_split((3, 8, 8), 0)])
def test_no_examples_raise(small, split):
    with pytest.raises(StageError, match="needs calibration examples"):
        Statistics(small, WANTED, 8, StageContext(split, Cache()))


def test_only_the_first_examples_are_used(small, noise):
    few = noise_split((3, 8, 8), 64)
    few.inputs[5:] = 100.0
    found = Statistics(small, WANTED, 5, StageContext(few, Cache()))
    assert found.ranges()["input"] == (noise.inputs[:5].min(), noise.inputs[:5].max())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_that_are_not_finite_raise(small, bad):
    split = noise_split((3, 8, 8), 8)
    split.inputs[3, 0, 0, 0] = bad
    with pytest.raises(StageError, match="'input' of the float network is not finite"):
        Statistics(small, WANTED, 8, StageContext(split, Cache())).ranges()


def test_one_pass_serves_everything(small, context, passes):
    found = Statistics(small, WANTED, 64, context)
    found.histograms(), found.ranges(), found.means(), found.second_moments()
    again = Statistics(small, WANTED, 64, context)
    again.histograms(), again.channel_second_moments()
    assert [sum(p) for p in passes] == [64]


@pytest.mark.parametrize("order", [(7, 20, 64), (64, 20, 7), (20, 64, 7)])
def test_one_pass_serves_all_numbers_of_examples(small, noise, order, passes, monkeypatch, tmp_path):
    monkeypatch.setattr(running, "MAX_EXAMPLES", 1)  # so that all batches have the same size
    separate = {n: Statistics(small, WANTED, n, StageContext(noise, Cache())) for n in order}
    [s.histograms() for s in separate.values()]
    del passes[:]
    for n in order:  # each with a new cache object, like another process
        context = StageContext(noise, Cache(tmp_path), calibration_sizes=(20, 7, 64, 1000, 0))
        equal(Statistics(small, WANTED, n, context), separate[n])
    assert sum(map(sum, passes)) == 64


def test_resuming_with_other_batch_sizes(small, noise):
    context = StageContext(noise, Cache(), calibration_sizes=(5, 37))
    direct = Statistics(small, WANTED, 64, StageContext(noise, Cache()))
    Statistics(small, WANTED, 37, context).ranges()
    found = Statistics(small, WANTED, 64, context)
    for tensor, span in direct.ranges().items():
        assert found.ranges()[tensor] == pytest.approx(span, rel=1e-5)
    assert found.means()["flat"] == pytest.approx(direct.means()["flat"], rel=1e-4)


def test_concurrent_use(small, noise, tmp_path):
    def one(n):
        return Statistics(small, WANTED, n, StageContext(noise, Cache(tmp_path), calibration_sizes=(20, 64)))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: (one(n), one(n).histograms())[0], [20, 64, 64, 20]))
    equal(found[0], found[3])
    equal(found[1], found[2])


def test_a_missing_part_of_an_entry_is_computed_again(small, noise, tmp_path):
    context = StageContext(noise, Cache(tmp_path), calibration_sizes=(20, 64))
    wanted = Statistics(small, WANTED, 20, context)
    counts = wanted.histograms()["sum"].counts
    for path in tmp_path.glob("histograms-*"):
        path.unlink()
    fresh = StageContext(noise, Cache(tmp_path), calibration_sizes=(20, 64))
    assert Statistics(small, WANTED, 64, fresh).histograms()["sum"].counts.sum() > counts.sum()
    again = Statistics(small, WANTED, 20, StageContext(noise, Cache(tmp_path)))
    assert np.array_equal(again.histograms()["sum"].counts, counts)


def test_memory_is_bounded(small, monkeypatch):
    monkeypatch.setattr(running, "MAX_BATCH_BYTES", 20_000)
    split = noise_split((3, 8, 8), 300)
    batches = activations(small, ("input", "stem_relu", "depthwise_relu"), split, 300)
    sizes = [(len(batch["input"]), sum(v.nbytes for v in batch.values())) for batch in batches]
    assert sum(n for n, _ in sizes) == 300
    assert max(n_bytes for _, n_bytes in sizes) <= 20_000
    assert max(n for n, _ in sizes) > 1


@pytest.mark.parametrize(
    ("first", "breaks"), [(0, ()), (0, (10, 32)), (10, (10, 11)), (63, (5,)), (0, (64, 70))]
)
def test_portions(small, noise, first, breaks, monkeypatch):
    monkeypatch.setattr(running, "MAX_EXAMPLES", 16)
    batches = [b["input"] for b in activations(small, ("input",), noise, 64, first, breaks)]
    assert np.array_equal(np.concatenate(batches), noise.inputs[first:])
    ends = first + np.cumsum([len(b) for b in batches])
    assert {b for b in breaks if first < b <= 64} <= set(ends.tolist())
    assert max(map(len, batches)) <= 16


def test_a_caller_that_stops_early_and_examples_of_another_shape(small, noise):
    stream = activations(small, ("sum",), noise, 64)
    next(stream)
    stream.close()
    with pytest.raises(StageError, match="calibration examples have the shape"):
        next(activations(small, ("sum",), noise_split((3, 9, 9), 4), 4))


def test_a_network_with_a_fixed_batch(small, noise, context):
    proto = small.proto()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7  # 64 is not a multiple of 7
    fixed = Artifact.onnx(proto, small.input)
    wanted, found = Statistics(small, WANTED, 64, context), Statistics(fixed, WANTED, 64, context)
    assert found.key != wanted.key
    for tensor, span in wanted.ranges().items():
        assert found.ranges()[tensor] == pytest.approx(span, rel=1e-5)


def test_cache_keys_and_use_across_processes(small, noise, tmp_path):
    cache = Cache(tmp_path)
    first = Statistics(small, WANTED, 64, StageContext(noise, cache))
    first.histograms()
    n_files = len(list(tmp_path.iterdir()))
    again = Statistics(small, WANTED, 64, StageContext(noise, Cache(tmp_path)))
    equal(again, first)
    assert len(list(tmp_path.iterdir())) == n_files == 2
    other = noise_split((3, 8, 8), 64, seed=1)
    keys = {
        first.key,
        Statistics(small, WANTED, 63, StageContext(noise, cache)).key,
        Statistics(small, WANTED, 64, StageContext(other, cache)).key,
        Statistics(small, Wanted(("input",)), 64, StageContext(noise, cache)).key,
    }
    assert len(keys) == 4
    assert Statistics(small, WANTED, 64, StageContext(noise, cache, 5, (3,))).key == first.key
    assert Statistics(small, WANTED, 1000, StageContext(noise, cache)).key == first.key

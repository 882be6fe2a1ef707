"""Calibration on a mix of clean and degraded images: the split, and the knob of the quantize stage."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.quantization.calibration import activations as running
from spaces.quantization.calibration import statistics as module
from spaces.quantization.calibration.degradations import DEGRADATIONS, Degradation
from spaces.quantization.calibration.degraded_split import DegradedSplit, is_degraded
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

PLACES = np.arange(1000)


def inputs_of(split, batch_size=64, limit=None):
    return np.concatenate([x for x, _ in split.batches(batch_size, limit)])


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 1000))
def test_any_first_examples_have_the_share(one, other, n):
    low, high = sorted((one, other))
    few, many = is_degraded(PLACES, low), is_degraded(PLACES, high)
    assert abs(int(many[:n].sum()) - high * n) < 3
    assert not (few & ~many).any()  # a smaller share is a subset of a larger one


def test_none_and_all():
    assert not is_degraded(PLACES, 0.0).any()
    assert is_degraded(PLACES, 1.0).all()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_examples_do_not_depend_on_batches(noise, batch_size):
    split = DegradedSplit(noise, seed=3, share=0.5)
    whole, chosen = inputs_of(split), is_degraded(np.arange(64), 0.5)
    assert np.array_equal(inputs_of(split, batch_size), whole)
    assert np.array_equal(inputs_of(split, batch_size, 20), whole[:20])
    assert np.array_equal(whole[~chosen], noise.inputs[~chosen])
    assert (whole[chosen] != noise.inputs[chosen]).any(axis=(1, 2, 3)).all()
    assert whole.dtype == np.float32
    assert [len(y) for _, y in split.batches(20)] == [20, 20, 20, 4]


def test_a_larger_share_degrades_the_same_examples_equally(noise):
    few, many = (inputs_of(DegradedSplit(noise, 0, share)) for share in (0.3, 0.8))
    chosen = is_degraded(np.arange(64), 0.3)
    assert np.array_equal(few[chosen], many[chosen])


def test_every_degradation_occurs_about_as_often(noise, monkeypatch):
    counts, real = Counter(), Degradation.__call__

    def counting(self, image, random):
        counts[self.name] += 1
        return real(self, image, random)

    monkeypatch.setattr(Degradation, "__call__", counting)
    assert DegradedSplit(noise_split((1, 8, 8), 350), 0).images(350).shape == (350, 8, 8, 1)
    assert set(counts) == set(DEGRADATIONS)
    assert 25 < min(counts.values()) < max(counts.values()) < 80  # 50 each, within four standard deviations


def test_a_single_degradation(noise):
    each = {kind: DegradedSplit(noise, 0, kinds=(kind,)).images(20) for kind in DEGRADATIONS}
    assert all(images.shape == (20, 8, 8, 3) and images.dtype == np.uint8 for images in each.values())
    assert len({images.tobytes() for images in each.values()}) == 7
    for kind, images in each.items():
        split = DegradedSplit(noise, 0, kinds=(kind,))
        assert np.array_equal(split.pixels.inputs(images), inputs_of(split, limit=20))


def test_digests_depend_on_all_arguments(noise):
    base = DegradedSplit(noise, 0, 0.5)
    others = [
        replace(base, seed=1), replace(base, share=0.25), replace(base, kinds=("low_noise",)),
        replace(base, split=noise_split((3, 8, 8), 63)),
    ]  # fmt: skip
    assert len({s.digest for s in (base, *others)}) == 5
    copy = pickle.loads(pickle.dumps(base))
    assert copy.digest == base.digest
    assert np.array_equal(inputs_of(copy), inputs_of(base))


def test_examples_that_are_not_images_raise():
    with pytest.raises(StageError, match="only images can be degraded"):
        inputs_of(DegradedSplit(noise_split((6,)), 0))


# -- the knob ------------------------------------------------------------------------------------------------------


def apply(artifact, context, **values):
    return QuantizeStage().apply(artifact, values, context)


@pytest.fixture
def never(monkeypatch):
    """Fails if an image is degraded."""

    def refuse(*arguments):
        raise AssertionError("an image was degraded")

    monkeypatch.setattr(DegradedSplit, "batches", refuse)


@pytest.mark.parametrize("values", [{}, {"clipping": "kl"}, {"bias_correction": True}])
def test_a_share_of_0_is_clean_calibration(small, context, values, never):
    clean, zero = apply(small, context, **values), apply(small, context, degraded_share=0.0, **values)
    assert zero.onnx_bytes == clean.onnx_bytes
    stage = QuantizeStage()
    assert stage.canonical(small, {"degraded_share": 0, **values}, context) == stage.canonical(
        small, values, context
    )


def test_the_share_changes_only_numbers(small, context):
    files = [apply(small, context, degraded_share=share, clipping="mse") for share in (0.0, 0.25, 0.5, 1.0)]
    assert len({f.digest for f in files}) == 4
    assert len({len(f.onnx_bytes) for f in files}) == 1
    stage = QuantizeStage()
    shapes = [
        stage.structure(small, stage.canonical(small, {"degraded_share": share}, context), context)
        for share in (0.0, 0.5)
    ]
    assert shapes[0] == shapes[1]


def test_the_file_equals_calibration_on_stored_degraded_examples(small, context, noise):
    stored = replace(noise, raw=inputs_of(DegradedSplit(noise, context.seed, 0.5)))
    for values in ({"clipping": "mse"}, {"bias_correction": True, "calibration_images": 33}):
        wanted = apply(small, StageContext(stored, Cache()), **values)
        assert apply(small, context, degraded_share=0.5, **values).onnx_bytes == wanted.onnx_bytes


def test_the_seed_decides_the_degradations(small, noise):
    digests = [
        apply(small, StageContext(noise, Cache(), seed), degraded_share=0.5).digest for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_one_pass_per_share_serves_all_numbers_of_examples(small, noise, monkeypatch, tmp_path):
    counts = []

    def counting(artifact, tensors, split, *arguments):
        counts.append((type(split).__name__, 0))
        for batch in running.activations(artifact, tensors, split, *arguments):
            counts[-1] = (counts[-1][0], counts[-1][1] + len(batch["input"]))
            yield batch

    monkeypatch.setattr(module, "activations", counting)
    for _ in range(2):  # the second time from the cache
        for share in (0.0, 0.5):
            for n in (16, 64):
                context = StageContext(noise, Cache(tmp_path), calibration_sizes=(16, 64))
                apply(small, context, degraded_share=share, calibration_images=n)
    assert sum(n for kind, n in counts if kind == "ArraySplit") == 64
    assert sum(n for kind, n in counts if kind == "DegradedSplit") == 64


def test_estimates_depend_on_the_share(small, context):
    stage = QuantizeStage()
    rows = [stage.canonical(small, {"degraded_share": s}, context) for s in (0.0, 1.0)]
    found = stage.estimates(small, rows, context)["activations_sqnr_db"]
    assert found[0] != found[1]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_without_images_the_knob_is_empty(lonely, share):
    stage, context = QuantizeStage(), StageContext(noise_split((6,)), Cache())
    said = stage.empty_knobs(lonely, {"degraded_share": (0.0, share)}, context)
    assert "(6,) are no images" in said["degraded_share"]
    assert stage.canonical(lonely, {"degraded_share": share}, context)["degraded_share"] == 0
    assert apply(lonely, context, degraded_share=share).digest == apply(lonely, context).digest
    stage.check(lonely, {"degraded_share": (0.0, share)}, context)
    with pytest.raises(StageError, match=r"quantize.degraded_share must be 0, not \[.*no images"):
        stage.check(lonely, {"degraded_share": (share,)}, context)


def test_with_images_the_knob_is_not_empty(small, context):
    assert QuantizeStage().empty_knobs(small, {"degraded_share": (0.0, 0.5)}, context) == {}
    QuantizeStage().check(small, {"degraded_share": (0.5,)}, context)


def test_a_share_that_selects_no_image_is_canonically_0(small, context):
    stage = QuantizeStage()
    # The first example is degraded from a share of 0.5 on.
    values = {"degraded_share": 0.4, "calibration_images": 1}
    assert stage.canonical(small, values, context)["degraded_share"] == 0
    assert stage.canonical(small, values | {"degraded_share": 0.6}, context)["degraded_share"] == 0.6
    assert (
        apply(small, context, **values).onnx_bytes == apply(small, context, calibration_images=1).onnx_bytes
    )


@pytest.mark.parametrize("share", [-0.1, 1.5, "half", True])
def test_a_share_lies_between_0_and_1(small, context, share):
    with pytest.raises(StageError, match=r"quantize\.degraded_share must"):
        apply(small, context, degraded_share=share)


def test_images_may_have_their_channels_last(build):
    b = build((4, 5, 1))
    artifact = b.artifact(b.linear(b.op("Flatten", ["input"], "flat"), "only", 20, 3))
    context = StageContext(noise_split((4, 5, 1)), Cache())
    assert artifact.input == InputSpec((4, 5, 1))
    assert apply(artifact, context, degraded_share=1.0).digest != apply(artifact, context).digest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.task.data.splits import Normalise
from spaces.stages import pixels as module
from spaces.stages.array_split import ArraySplit
from spaces.stages.pixels import Pixels, layout_of, no_images, pixels_of
from spaces.stages.testing import noise_split

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def raw_images(n=6, side=5, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, side, side + 1, channels)).astype(np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("moments", [IMAGENET, {"mean": (0.5,), "std": (0.25,)}, {}])
def test_images_of_a_uint8_split_are_restored(layout, moments):
    raw = raw_images()
    split = ArraySplit(raw, np.zeros(6, np.int64), Normalise(layout=layout, **moments))
    inputs, _ = next(split.batches(6))
    found = pixels_of(split)
    assert found is split.pixels
    assert not found.assumed
    assert np.array_equal(np.rint(found.images(inputs)), raw)
    assert found.inputs(raw) == pytest.approx(inputs, abs=1e-6)
    assert found.inputs(raw).flags["C_CONTIGUOUS"]


def test_white_need_not_be_255():
    raw = np.array([0, 4, 16], np.uint8).reshape(1, 1, 3, 1)
    split = ArraySplit(raw, np.zeros(1, np.int64), Normalise(1 / 16, white=16))
    assert split.pixels.images(next(split.batches(1))[0]).ravel().tolist() == [0, 63.75, 255]


def test_white_changes_no_digest():
    raw, labels = raw_images(), np.zeros(6, np.int64)
    assert ArraySplit(raw, labels, Normalise(white=16)).digest == ArraySplit(raw, labels, Normalise()).digest


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_split_of_another_dtype_has_no_pixels(dtype):
    raw = np.zeros((2, 4, 4, 1), dtype)
    assert ArraySplit(raw, np.zeros(2, np.int64), Normalise()).pixels is None


def test_black_and_white_are_estimated_from_the_range_of_inputs(monkeypatch):
    split = noise_split((3, 4, 4), 8)
    found = pixels_of(split)
    assert found == Pixels("NCHW", (float(split.inputs.min()),), (float(split.inputs.max()),), assumed=True)
    monkeypatch.setattr(module, "RANGE_EXAMPLES", 2)
    assert pixels_of(split).white == (float(split.inputs[:2].max()),)
    images = pixels_of(split).images(split.inputs)
    assert (images.min(), images.max()) == (0, 255)  # values outside the range are clipped


def test_images_of_one_colour_have_a_range():
    flat = ArraySplit(np.full((2, 1, 3, 3), 7, np.float32), np.zeros(2, np.int64))
    assert np.array_equal(pixels_of(flat).images(flat.inputs), np.zeros((2, 3, 3, 1)))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((3, 8, 8), "NCHW"), ((1, 8, 8), "NCHW"), ((8, 8, 3), "NHWC"), ((8, 9, 1), "NHWC"),
        ((9, 128, 9), None), ((30,), None), ((3, 8), None), ((3, 8, 8, 8), None),
    ],
)  # fmt: skip
def test_layout_of_a_shape(shape, layout):
    assert layout_of(shape) == layout
    assert (no_images(shape) == "") == (layout is not None)
    assert (pixels_of(noise_split(shape, 2)) is None) == (layout is None)


def test_empty_splits_and_nan_have_no_pixels():
    assert pixels_of(noise_split((1, 2, 2), 0)) is None
    assert pixels_of(ArraySplit(np.full((1, 1, 2, 2), np.nan, np.float32), np.zeros(1, np.int64))) is None


@given(st.floats(-3, 3), st.floats(0.1, 4), st.sampled_from(["NCHW", "NHWC"]))
def test_images_and_inputs_are_inverse(black, span, layout):
    pixels = Pixels(layout, (black,), (black + span,))
    images = raw_images(2, 4, 1)
    assert np.array_equal(np.rint(pixels.images(pixels.inputs(images))), images)

import numpy as np
import pytest
import torch
from torch.nn import functional

from evaluators.task.metrics.segmentation.class_maps import ClassMaps

RNG = np.random.default_rng(0)


def scores(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_the_largest_score_decides_in_both_layouts():
    first = scores(3, 4, 6, 5)
    maps = ClassMaps(4)(first)
    np.testing.assert_array_equal(maps, first.argmax(1))
    np.testing.assert_array_equal(ClassMaps(4, "NHWC")(np.moveaxis(first, 1, -1)), maps)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_class_maps_are_taken_as_they_are(dtype):
    maps = RNG.integers(0, 4, (3, 6, 5))
    np.testing.assert_array_equal(ClassMaps(4)(maps.astype(dtype)), maps)


def test_class_maps_may_keep_the_axis_of_the_classes():
    maps = RNG.integers(0, 4, (3, 6, 5))
    np.testing.assert_array_equal(ClassMaps(4)(maps[:, None]), maps)
    np.testing.assert_array_equal(ClassMaps(4, "NHWC")(maps[..., None]), maps)
    assert ClassMaps(4).misfit(maps[:, None], 3, (6, 5)) is None


def test_one_score_of_two_classes():
    one = scores(3, 1, 6, 5)
    np.testing.assert_array_equal(ClassMaps(2, threshold=0.2)(one), one[:, 0] > 0.2)
    np.testing.assert_array_equal(ClassMaps(2, threshold=0.2)(one[:, 0]), one[:, 0] > 0.2)


@pytest.mark.parametrize(("size", "new"), [((6, 5), (12, 15)), ((6, 5), (13, 7)), ((1, 4), (3, 4))])
@pytest.mark.parametrize("how", ["bilinear", "nearest"])
def test_outputs_are_enlarged_as_torch_does(size, new, how):
    small = scores(2, 4, *size)
    more = {"align_corners": False} if how == "bilinear" else {}
    large = functional.interpolate(torch.from_numpy(small), new, mode=how, **more).numpy()
    maps = ClassMaps(4, upsample=how)
    np.testing.assert_array_equal(maps(small, new), large.argmax(1))
    np.testing.assert_array_equal(
        ClassMaps(4, "NHWC", upsample=how)(np.moveaxis(small, 1, -1), new), large.argmax(1)
    )
    nearest = functional.interpolate(torch.from_numpy(small), new, mode="nearest").numpy().argmax(1)
    np.testing.assert_array_equal(maps(small.argmax(1), new), nearest)


@pytest.mark.parametrize(
    ("maps", "shape", "text"),
    [
        (
            ClassMaps(4),
            (2, 4, 3, 3),
            r"positions of 3 x 3, but masks have 6 x 6; task.upsample=bilinear or nearest",
        ),
        (ClassMaps(4, upsample="nearest"), (2, 4, 9, 6), "positions of 9 x 6, but masks have 6 x 6$"),
        (
            ClassMaps(4),
            (2, 6, 6, 4),
            "6 scores for each position under task.output_layout=NCHW, but 4 are needed",
        ),
        (ClassMaps(4), (2, 1, 6, 6), "1 scores .* but 4 are needed .task.threshold"),
        (ClassMaps(2, threshold=0.0), (2, 2, 6, 6), "2 scores for each position .* but 1 are needed"),
        (ClassMaps(4), (2, 4), "class scores .* or class maps .* are needed"),
        (ClassMaps(4), (1, 4, 6, 6), "for 2 examples"),
    ],
)
def test_other_outputs_are_refused(maps, shape, text):
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(maps.misfit(np.zeros(shape, np.float32), 2, (6, 6)))


@pytest.mark.parametrize(
    ("maps", "shape"),
    [
        (ClassMaps(4), (2, 4, 6, 6)),
        (ClassMaps(4), (2, 6, 6)),
        (ClassMaps(4, "NHWC"), (2, 6, 6, 4)),
        (ClassMaps(4, upsample="nearest"), (2, 4, 3, 3)),
        (ClassMaps(4, upsample="bilinear"), (2, 3, 3)),
        (ClassMaps(2, threshold=0.0), (2, 1, 6, 6)),
    ],
)
def test_outputs_that_fit(maps, shape):
    assert maps.misfit(np.zeros(shape, np.float32), 2, (6, 6)) is None

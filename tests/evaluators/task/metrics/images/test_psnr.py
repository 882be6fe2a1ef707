import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from evaluators.task.metrics.images import pictures
from evaluators.task.metrics.images.pictures import Pictures, luma
from evaluators.task.metrics.images.psnr import MOST_DB, PSNR
from evaluators.task.metrics.images.ssim import SSIM


def examples(n=4, channels=3, white=1.0):
    rng = np.random.default_rng(0)
    labels = rng.random((n, channels, 18, 21)).astype(np.float32)
    outputs = labels + rng.normal(0, 0.1, labels.shape).astype(np.float32)
    return outputs * np.float32(white), labels * np.float32(white)


@pytest.mark.parametrize("white", [1.0, 255.0])
@pytest.mark.parametrize("border", [0, 3])
def test_equals_scikit_image(white, border):
    outputs, labels = examples(white=white)
    inner = slice(border, -border or None)
    found = PSNR(Pictures(white=white, border=border)).per_example(outputs, labels)
    for score, one, other in zip(found, outputs.clip(0, white), labels, strict=True):
        cut = (array[:, inner, inner].astype(np.float64) for array in (other, one))
        assert score == pytest.approx(peak_signal_noise_ratio(*cut, data_range=white), rel=1e-6)


def test_luma_is_that_of_bt_601():
    rgb = np.random.default_rng(0).random((2, 6, 5, 3))
    np.testing.assert_allclose(luma(rgb)[..., 0], rgb2ycbcr(rgb)[..., 0] / 255)
    assert luma(np.ones((1, 1, 1, 3)))[0, 0, 0, 0] == pytest.approx(235 / 255)


def test_luma_alone():
    outputs, labels = examples()
    found = PSNR(Pictures(), on_luma=True).per_example(outputs, labels)
    one, other = (luma(np.moveaxis(array, 1, -1).astype(float)) for array in (outputs.clip(0, 1), labels))
    np.testing.assert_allclose(found, -10 * np.log10(((one - other) ** 2).mean((1, 2, 3))))


def test_both_layouts_and_a_few_examples_at_a_time_give_the_same(monkeypatch):
    outputs, labels = examples()
    last = [np.moveaxis(array, 1, -1) for array in (outputs, labels)]
    for metric in (PSNR, SSIM):
        found = metric(Pictures(border=2)).per_example(outputs, labels)
        np.testing.assert_allclose(metric(Pictures("NHWC", border=2)).per_example(*last), found)
        with monkeypatch.context() as patch:
            patch.setattr(pictures, "_CHUNK_BYTES", 1)
            np.testing.assert_array_equal(metric(Pictures(border=2)).per_example(outputs, labels), found)


def test_equal_pictures_have_the_highest_ratio():
    _, labels = examples()
    assert PSNR(Pictures()).per_example(labels, labels).tolist() == [MOST_DB] * len(labels)


def test_values_beyond_black_and_white_count_as_these():
    labels = np.array([0.0, 1.0] * 8, np.float32).reshape(1, 1, 4, 4)
    assert PSNR(Pictures()).per_example(3 * labels - 1, labels)[0] == MOST_DB

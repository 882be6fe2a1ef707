import numpy as np
import pytest
from skimage.metrics import structural_similarity

from evaluators.task.metrics.images.pictures import Pictures, luma
from evaluators.task.metrics.images.ssim import SSIM


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_equals_scikit_image(channels, noise):
    rng = np.random.default_rng(0)
    labels = rng.random((4, channels, 24, 19)).astype(np.float32).cumsum(2) / 24
    outputs = np.clip(labels + rng.normal(0, noise, labels.shape), 0, 1).astype(np.float32)
    found = SSIM(Pictures(border=1)).per_example(outputs, labels)
    lumas = [
        luma(np.moveaxis(array, 1, -1).astype(np.float64))[:, 1:-1, 1:-1, 0] for array in (outputs, labels)
    ]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    wanted = [structural_similarity(one, other, **settings) for one, other in zip(*lumas, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_equal_pictures_have_one():
    labels = np.random.default_rng(0).random((2, 3, 12, 12))
    np.testing.assert_allclose(SSIM(Pictures()).per_example(labels, labels), 1.0)

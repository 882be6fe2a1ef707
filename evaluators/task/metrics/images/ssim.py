"""The structural similarity."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric
from evaluators.task.metrics.images.pictures import Picture, Pictures, luma

WINDOW = 11
_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03


class SSIM(MeanMetric):
    """Mean structural similarity of the luma, in [-1, 1], 1 for equal pictures; then the mean over the examples.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13: Gaussian window of
    11 x 11 with a deviation of 1.5 pixels, where it lies within the picture.

    Args:
        pictures: Turns outputs and labels into pictures.
    """

    name = "ssim"
    bounds = (-1.0, 1.0)

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def per_example(self, outputs: NDArray[np.generic], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns the similarity of each example, `(b,)`."""
        pairs = self.pictures.pairs(outputs, labels)
        return np.concatenate([_similarity(luma(one), luma(other)) for one, other in pairs])


def _similarity(one: Picture, other: Picture) -> NDArray[np.float64]:
    """Returns equation 13 of the paper, mean over positions and channels, for pictures `(b, height, width, channels)`."""
    c1, c2 = _K1**2, _K2**2
    mean_one, mean_other = _blurred(one), _blurred(other)
    var_one = _blurred(one**2) - mean_one**2
    var_other = _blurred(other**2) - mean_other**2
    shared = _blurred(one * other) - mean_one * mean_other
    similarity = (2 * mean_one * mean_other + c1) * (2 * shared + c2)
    similarity /= (mean_one**2 + mean_other**2 + c1) * (var_one + var_other + c2)
    return np.asarray(similarity.mean((1, 2, 3)))


def _blurred(pictures: Picture) -> Picture:
    """Returns the pictures under the window, where it lies within them."""
    from scipy.ndimage import correlate1d

    radius = WINDOW // 2
    window = np.exp(-0.5 * (np.arange(-radius, radius + 1) / _SIGMA) ** 2)
    window /= window.sum()
    inner = slice(radius, -radius)
    lines = correlate1d(pictures, window, axis=1)[:, inner]
    return np.asarray(correlate1d(lines, window, axis=2)[:, :, inner])

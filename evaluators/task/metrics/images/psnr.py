"""The peak signal-to-noise ratio."""

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import MeanMetric
from evaluators.task.metrics.images.pictures import Pictures, luma

MOST_DB = 100.0  # of equal pictures


class PSNR(MeanMetric):
    """`10 log10(white^2 / mean squared error)` of each example, at most 100 dB; then the mean over the examples.

    Args:
        pictures: Turns outputs and labels into pictures.
        on_luma: Whether only the luma of colours counts, as in most publications on super-resolution.
    """

    unit = "dB"
    bounds = (0.0, MOST_DB)

    def __init__(self, pictures: Pictures, on_luma: bool = False) -> None:
        self.pictures, self.on_luma = pictures, on_luma
        self.name = "psnr_y" if on_luma else "psnr"

    def per_example(self, outputs: NDArray[np.generic], labels: NDArray[np.generic]) -> NDArray[np.float64]:
        """Returns the ratio of each example, `(b,)`, dB."""
        errors = []
        for found, wanted in self.pictures.pairs(outputs, labels):
            one, other = (luma(found), luma(wanted)) if self.on_luma else (found, wanted)
            errors.append(((one - other) ** 2).mean((1, 2, 3)))
        return np.asarray(-10 * np.log10(np.maximum(np.concatenate(errors), 10 ** (-MOST_DB / 10))))

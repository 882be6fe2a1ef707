"""Logarithms of the probabilities that logits stand for."""

import numpy as np
from numpy.typing import NDArray


def log_shares(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the logarithm of the softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))

"""The nearest neighbours of vectors among one another."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Distance = Literal["cosine", "l2"]
_CHUNK = 2**23  # distances that are held at once


def nearest(vectors: NDArray[np.float32], k: int, distance: Distance = "cosine") -> NDArray[np.int64]:
    """Returns the k nearest others of each vector, nearest first, `(n, min(k, n - 1))`; of equally near ones the first.

    Args:
        vectors: `(n, ...)`; further axes are flattened.
        k: Number of neighbours.
        distance: `cosine`: the angle counts, and a vector of zeros is at a right angle to all; `l2`: the Euclidean distance.
    """
    x = vectors.reshape(len(vectors), -1).astype(np.float64)
    if distance == "cosine":
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        x = x / np.where(norms > 0, norms, 1.0)
    squares = (x**2).sum(axis=1) if distance == "l2" else np.zeros(len(x))
    k = min(k, len(x) - 1)
    found = np.empty((len(x), k), np.int64)
    step = max(1, _CHUNK // max(len(x), 1))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        distances = squares - 2 * x[rows] @ x.T
        own = np.arange(len(distances))
        distances[own, start + own] = np.inf
        found[rows] = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return found

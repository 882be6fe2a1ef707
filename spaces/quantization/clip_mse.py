"""Clipping by squared error: rounding noise and clipping error are balanced, for activations and for weights."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.clipping import ClipContext, Clipping, Histogram, windows
from spaces.quantization.schemes import Grid

N_CANDIDATES = 256
SHRUNK = np.linspace(1.0, 0.4, 25)  # shares of a weight's range that are tried


def mse_range(histogram: Histogram, context: ClipContext) -> tuple[float, float]:
    """Returns the range with the least expected squared error.

    A value inside is rounded, which costs `step^2 / 12` on average (uniform rounding noise); a value outside costs
    its squared distance to the range (Banner, Nahshan and Soudry, arXiv 1810.05723, equations 3 to 5, with the
    measured distribution in the place of an assumed one).
    """
    lows, highs = windows(histogram, N_CANDIDATES)
    edges, counts = histogram.edges, histogram.counts
    centres = (edges[1:] + edges[:-1]) / 2
    outside = centres - np.clip(centres, lows[:, None], highs[:, None])  # (n_candidates, n_bins)
    clipped = (outside**2 * counts).sum(axis=1)
    inside = ((outside == 0) * counts).sum(axis=1)
    error = clipped + inside * context.step(lows, highs) ** 2 / 12
    best = int(np.argmin(error))
    return float(lows[best]), float(highs[best])


def mse_share(
    weight: NDArray[np.float32], grid_of: Callable[[NDArray[np.float64]], Grid]
) -> NDArray[np.float64]:
    """Returns the share of a weight's range with the least squared error, one for each of its grid's scales.

    At 4 bits a range cut short costs a few outliers and spares all others much rounding.

    Args:
        weight: The float weight.
        grid_of: From shares, `()` or `(n_channels,)`, to the grid over that share of the range.
    """
    axis = grid_of(np.ones(())).axis
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    shape = () if axis is None else (weight.shape[axis],)
    best, least = np.ones(shape), np.full(shape, np.inf)
    for share in SHRUNK:
        rounded = grid_of(np.full(shape, share)).dequantized(weight)
        error = np.square(rounded - weight, dtype=np.float64).sum(axis=others)
        best = np.where(error < least, share, best)
        least = np.minimum(error, least)
    return best


CLIPPING = Clipping("mse", mse_range, needs_histogram=True, weight_share=mse_share)

"""Clipping by squared error: rounding noise and clipping error are balanced."""

import numpy as np

from spaces.quantization.clipping import ClipContext, Clipping, Histogram, windows

N_CANDIDATES = 256


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


CLIPPING = Clipping("mse", mse_range, needs_histogram=True)

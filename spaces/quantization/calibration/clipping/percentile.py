"""Clipping by percentile: the rarest values at either end are cut off."""

import numpy as np

from spaces.quantization.calibration.clipping.base import ClipContext, Clipping, Histogram


def percentile_range(histogram: Histogram, context: ClipContext) -> tuple[float, float]:
    """Returns the `100 - p` th and the `p` th percentile, to the resolution of a bin, zeros counted.

    A tail that holds no more than `100 - p` per cent of the values is cut to the bin edge that encloses the rest.
    """
    counts, edges = histogram.counts, histogram.edges
    spare = (counts.sum() + histogram.zeros) * (100.0 - context.percentile) / 100.0
    below = np.concatenate([[0], np.cumsum(counts)])  # values below each edge
    above = below[-1] - below
    # Exact zeros belong to no bin; they bound either tail, because a range always holds 0.
    low = edges[np.searchsorted(below, spare, side="right") - 1]
    high = edges[len(edges) - np.searchsorted(above[::-1], spare, side="right")]
    return min(float(low), 0.0), max(float(high), 0.0)


CLIPPING = Clipping("percentile", percentile_range, needs_histogram=True)

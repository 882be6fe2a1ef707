"""Clipping by percentile: the tails at either end are clipped."""

import numpy as np

from spaces.quantization.calibration.clipping.base import ClipContext, Clipping, Histogram


def percentile_range(histogram: Histogram, context: ClipContext) -> tuple[float, float]:
    """Returns the `100 - p` th and the `p` th percentile, zeros included, to the resolution of a bin.

    A tail of at most `100 - p` per cent of the values is clipped at the bin edge that encloses the rest.
    """
    counts, edges = histogram.counts, histogram.edges
    spare = (counts.sum() + histogram.zeros) * (100.0 - context.percentile) / 100.0
    below = np.concatenate([[0], np.cumsum(counts)])  # values below each edge
    above = below[-1] - below
    # Exact zeros are in no bin; they limit either tail, because a range always includes 0.
    low = edges[np.searchsorted(below, spare, side="right") - 1]
    high = edges[len(edges) - np.searchsorted(above[::-1], spare, side="right")]
    return min(float(low), 0.0), max(float(high), 0.0)


CLIPPING = Clipping("percentile", percentile_range, needs_histogram=True)

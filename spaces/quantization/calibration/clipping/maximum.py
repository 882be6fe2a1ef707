"""No clipping: the grid covers all observed values."""

from spaces.quantization.calibration.clipping.base import ClipContext, Clipping, Histogram


def max_range(histogram: Histogram, context: ClipContext) -> tuple[float, float]:
    """Returns the smallest and the largest value."""
    return histogram.low, histogram.high


CLIPPING = Clipping("max", max_range, needs_histogram=False)

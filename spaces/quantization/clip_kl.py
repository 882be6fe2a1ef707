"""Clipping by Kullback-Leibler divergence: the clipped and rounded distribution should say the same as the original."""

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.clipping import ClipContext, Clipping, Histogram, windows

N_CANDIDATES = 256


def kl_range(histogram: Histogram, context: ClipContext) -> tuple[float, float]:
    """Returns the range whose quantized distribution diverges least from the reference.

    The method of Migacz, "8-bit inference with TensorRT" (GTC 2017), slides 38 to 40: the reference is the
    histogram with everything outside the range put into its edge bins; the quantized distribution is
    the histogram inside the range, merged into as many groups as the scheme's grid has levels over it and spread
    again over the bins that were not empty. TensorRT has 128 levels for non-negative tensors; here the
    number is the scheme's own (256 for a range that the grid uses fully, 128 for the half of a symmetric one).
    """
    lows, highs = windows(histogram, N_CANDIDATES)
    n_levels = np.round((highs - lows) / context.step(lows, highs)).astype(int) + 1
    edges = histogram.edges
    first = np.clip(np.searchsorted(edges, lows, side="right") - 1, 0, len(edges) - 2)
    last = np.clip(np.searchsorted(edges, highs, side="left"), 1, len(edges) - 1)
    best, least = len(lows) - 1, np.inf
    for i in range(len(lows)):
        if last[i] - first[i] < n_levels[i]:
            continue  # fewer bins than levels: the histogram cannot show what rounding loses
        divergence = _divergence(histogram.counts, first[i], last[i], n_levels[i])
        if divergence < least:
            best, least = i, divergence
    return float(lows[best]), float(highs[best])


def _divergence(counts: NDArray[np.int64], first: int, last: int, n_levels: int) -> float:
    inside = counts[first:last].astype(np.float64)
    total, kept = counts.sum(), inside.sum()
    if kept == 0:
        return np.inf
    reference = inside.copy()
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    starts = (np.arange(n_levels) * len(inside)) // n_levels
    sizes = np.diff(np.append(starts, len(inside)))
    filled = np.add.reduceat((inside > 0).astype(np.float64), starts)
    mean = np.add.reduceat(inside, starts) / np.maximum(filled, 1)
    quantized = np.repeat(mean, sizes) * (inside > 0)
    # A bin that only outliers fill is empty in `quantized`; half a value keeps the logarithm finite.
    quantized = np.maximum(quantized / kept, 0.5 / total)
    p = reference / total
    return float((p[p > 0] * np.log(p[p > 0] / quantized[p > 0])).sum())


# The histogram has 2048 bins: beyond 11 bits a grid is finer than that, and nothing is ever clipped.
CLIPPING = Clipping("kl", kl_range, needs_histogram=True, most_bits=11)

"""Clipping by Kullback-Leibler divergence between the original and the clipped, quantized distribution."""

import numpy as np
from numpy.typing import NDArray

from spaces.quantization.calibration.clipping.base import ClipContext, Clipping, Histogram, windows

N_CANDIDATES = 256
# With more bins, sampling noise between neighbouring bins would count as information lost by rounding.
MAX_BINS = 2048

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def kl_range(histogram: Histogram, context: ClipContext) -> tuple[float, float]:
    """Returns the range whose quantized distribution diverges least from the reference.

    The method of Migacz, "8-bit inference with TensorRT" (GTC 2017), slides 38 to 40: the reference is the
    histogram with all values outside the range added to its edge bins; the quantized distribution is the
    histogram inside the range, merged into as many groups as the scheme's grid has levels in the range, each
    spread evenly over its non-empty bins. TensorRT has 128 levels for non-negative tensors; here the number
    is the scheme's own (256 for a range that the grid uses fully, 128 for the non-negative half of a
    symmetric grid).
    """
    lows, highs = windows(histogram, N_CANDIDATES)
    n_levels = np.round((highs - lows) / context.step(lows, highs)).astype(np.int64) + 1
    coarse = histogram.coarser(MAX_BINS)
    n_bins, inner = len(coarse.counts), coarse.edges[1:-1]
    first = np.where(lows <= coarse.low, 0, np.searchsorted(inner, lows, side="right"))
    last = np.where(highs >= coarse.high, n_bins, np.searchsorted(inner, highs, side="left") + 1)
    # With fewer bins than levels the histogram does not resolve the rounding.
    resolved = np.flatnonzero(last - first >= np.maximum(n_levels, 2))
    if not len(resolved):
        return float(lows[-1]), float(highs[-1])
    divergences = _divergences(coarse.counts, first[resolved], last[resolved], n_levels[resolved])
    best = resolved[np.argmin(divergences)] if np.isfinite(divergences).any() else len(lows) - 1
    return float(lows[best]), float(highs[best])


def _divergences(counts: NDArray[np.int64], first: Integers, last: Integers, n_levels: Integers) -> Floats:
    """Returns the divergence of each candidate, `(n_candidates,)`, in nats.

    All non-empty bins of a group have the same probability in the quantized distribution, so that `sum p (log
    p - log q)` follows from sums over groups, which are differences of cumulative sums, and from separate
    terms for the two edge bins of the reference.
    """
    total = int(counts.sum())
    below = np.concatenate([[0], np.cumsum(counts)])  # values below each edge
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    information = np.concatenate([[0.0], np.cumsum(_p_log_p(counts / max(total, 1)))])
    groups = np.minimum(np.arange(n_levels.max() + 1), n_levels[:, None])  # (n_candidates, n_groups + 1)
    bounds = first[:, None] + groups * (last - first)[:, None] // n_levels[:, None]
    sums, sizes = np.diff(below[bounds], axis=1), np.diff(filled[bounds], axis=1)
    kept = below[last] - below[first]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.log(sums / sizes / kept[:, None])
        within = np.where(sums > 0, sums * log_q, 0.0).sum(axis=1) / total
        # A bin with outliers only is empty in the quantized distribution; half a count keeps the logarithm
        # finite.
        empty = np.log(0.5 / total)
        found = information[last] - information[first] - within
        rows, ends = np.arange(len(kept)), n_levels - 1
        for edge, group, outside in (
            (first, np.zeros_like(ends), below[first]),
            (last - 1, ends, total - below[last]),
        ):
            own = counts[edge]
            found += _p_log_p((own + outside) / total) - _p_log_p(own / total)
            found -= outside / total * np.where(own > 0, log_q[rows, group], empty)
    return np.where(kept > 0, found, np.inf)


def _p_log_p(p: Floats) -> Floats:
    return p * np.log(np.where(p > 0, p, 1.0))


# The histogram has 2048 bins: a grid of more than 11 bits is finer, and nothing is ever clipped.
CLIPPING = Clipping("kl", kl_range, needs_histogram=True, most_bits=11)

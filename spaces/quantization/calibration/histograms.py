"""Histograms and channel sums of a pass over calibration examples, whose state can be stored and resumed."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.quantization.calibration.activations import Batch
from spaces.quantization.calibration.clipping.base import Histogram
from spaces.quantization.calibration.histogram import N_SIDE, Distribution
from spaces.quantization.calibration.moments import ChannelSums
from spaces.quantization.calibration.subsample import SubsampledHistogram
from spaces.stages.cache import Arrays


class NotFiniteError(StageError):
    """Activations are not finite on the calibration examples.

    Attributes:
        tensors: Their names.
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        super().__init__(
            f"activation {tensors[0]!r} of the float network is not finite on the calibration examples, "
            f"so it has no range to quantize"
        )
        self.tensors = tuple(tensors)


class Histograms:
    """Histograms and sums of activation tensors.

    Args:
        tensors: Names of the tensors with a histogram.
        axes: Tensor to channel axis, for the tensors with sums per channel.
    """

    def __init__(self, tensors: Sequence[str], axes: Mapping[str, int]) -> None:
        self.distributions = {tensor: SubsampledHistogram() for tensor in tensors}
        self.sums = {t: ChannelSums.empty(axes.get(t)) for t in dict.fromkeys((*tensors, *axes))}

    def add(self, batch: Batch) -> None:
        """Counts a batch: tensor name to values, `(n_examples, ...)`.

        Raises:
            NotFiniteError: An activation is not finite.
        """
        infinite = []
        for tensor, sums in self.sums.items():  # tensor by tensor, while the values are in the CPU's cache
            sums.add(batch[tensor])
            if tensor in self.distributions and not self.distributions[tensor].add(batch[tensor]):
                infinite.append(tensor)
        if infinite:
            raise NotFiniteError(infinite)

    def moments(self) -> Arrays:
        """Returns extrema and sums as arrays, from which `resume` restores them."""
        sums = tuple(self.sums.values())
        spans = [(d.counted.low, d.counted.high) for d in self.distributions.values()]
        return {
            "ranges": np.array(spans, np.float64).reshape(-1, 2),
            "sums": _flat([s.sums for s in sums]),
            "squares": _flat([s.squares for s in sums]),
            "n_channels": np.array([len(s.sums) for s in sums], np.int64),
            "n_values": np.array([s.n_values for s in sums], np.int64),
        }

    def histograms(self) -> Arrays:
        """Returns the bins of all tensors, concatenated, and the state of the subsampling."""
        rows = self.distributions.values()
        found = [row.counted.histogram() for row in rows]
        counts = _flat([h.counts for h in found], np.int64)
        return {
            "counts": counts.astype(np.uint32) if counts.max(initial=0) < 2**32 else counts,
            "n_bins": np.array([len(h.counts) for h in found], np.int64),
            "first": np.array([h.first for h in found], np.int64),
            "exponent": np.array([row.counted.exponent for row in rows], np.int64),
            "zeros": np.array([h.zeros for h in found], np.int64),
            "n_examples": np.array([row.n_examples for row in rows], np.int64),
            "bounds": np.array([row.bounds or (np.nan, np.nan) for row in rows], np.float64).reshape(-1, 2),
        }

    def resume(self, moments: Arrays, histograms: Arrays) -> None:
        """Restores the state from the return values of `moments` and `histograms` of the same tensors."""
        by_name = histograms_of(tuple(self.distributions), moments, histograms)
        columns = (histograms[name].tolist() for name in ("exponent", "n_examples", "bounds"))
        for (tensor, histogram), exponent, n_examples, bounds in zip(by_name.items(), *columns, strict=True):
            counts = np.zeros(2 * N_SIDE, np.int64)
            start = histogram.first + N_SIDE
            counts[start : start + len(histogram.counts)] = histogram.counts
            counted = Distribution(histogram.low, histogram.high, histogram.zeros, exponent, counts)
            tails = None if np.isnan(bounds).any() else (bounds[0], bounds[1])
            self.distributions[tensor] = SubsampledHistogram(counted, n_examples, tails)
        rows = zip(
            by_tensor(moments, "sums"), by_tensor(moments, "squares"), moments["n_values"], strict=True
        )
        for sums, (total, squares, n_values) in zip(self.sums.values(), rows, strict=True):
            sums.sums, sums.squares, sums.n_values = total, squares, int(n_values)


def histograms_of(tensors: Sequence[str], moments: Arrays, histograms: Arrays) -> dict[str, Histogram]:
    """Returns the histogram of each tensor from the stored arrays of `Histograms`."""
    widths = np.ldexp(1.0, histograms["exponent"].astype(np.int64)) / N_SIDE
    counts = np.split(histograms["counts"].astype(np.int64), np.cumsum(histograms["n_bins"])[:-1])
    columns = (histograms["zeros"].tolist(), widths.tolist(), histograms["first"].tolist())
    return {
        tensor: Histogram(low, high, bins, zeros, width, first)
        for tensor, (low, high), bins, zeros, width, first in zip(
            tensors, moments["ranges"].tolist(), counts, *columns, strict=True
        )
    }


def by_tensor(moments: Arrays, name: str) -> list[NDArray[np.float64]]:
    """Returns `sums` or `squares` of the stored moments, split by tensor, each `(n_channels,)`."""
    return np.split(moments[name].astype(np.float64), np.cumsum(moments["n_channels"])[:-1])


def _flat(parts: Sequence[NDArray[np.generic]], dtype: type[np.generic] = np.float64) -> NDArray[np.generic]:
    return np.concatenate([np.zeros(0, dtype), *parts])

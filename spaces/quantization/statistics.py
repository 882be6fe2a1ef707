"""What the activations of a float network are like on calibration data, in bounded memory.

Two passes over the same examples: the first finds every tensor's smallest and largest value (and
the mean of each channel, for bias correction), the second fills histograms with edges that the first has fixed. Both
are sums and extrema, so parts merge exactly; both are cached under what they depend on and nothing
else, so that all candidates of a study share them, in any process.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.artifact import Artifact
from spaces.cache import digest_of
from spaces.errors import StageError
from spaces.quantization.activations import Batch, activations
from spaces.quantization.clipping import Histogram
from spaces.stage import StageContext

N_BINS = 2048


@dataclass(frozen=True)
class Moments:
    """Extrema of every tensor, and sums by channel.

    Attributes:
        low: Smallest value of each tensor, `(n_tensors,)`.
        high: Largest value, same shape.
        sums: For each tensor that means are wanted of, the sum over each channel, `(n_channels,)`.
        sizes: How many values each of those sums has.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sums: tuple[NDArray[np.float64], ...]
    sizes: NDArray[np.int64]

    def merge(self, other: "Moments") -> "Moments":
        """Returns the moments of both sets of examples together."""
        return Moments(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            self.sizes + other.sizes,
        )


@dataclass(frozen=True)
class Wanted:
    """What statistics are wanted of.

    Attributes:
        tensors: Names of activation tensors (the network's input may be among them).
        means: `(tensor, channel axis)` of those whose channel means are wanted too.
    """

    tensors: tuple[str, ...]
    means: tuple[tuple[str, int], ...] = ()


class Statistics:
    """Statistics of one float network on the first examples of the calibration split, computed when asked for.

    Args:
        artifact: The float ONNX model.
        wanted: The tensors.
        n_images: How many examples.
        context: Calibration split and cache.

    Raises:
        StageError: There is no calibration data.
    """

    def __init__(self, artifact: Artifact, wanted: Wanted, n_images: int, context: StageContext) -> None:
        if context.calibration is None:
            raise StageError("quantization needs calibration examples, but the stage was given none")
        self._artifact, self._wanted, self._n_images = artifact, wanted, n_images
        self._split, self._cache = context.calibration, context.cache
        self.key = digest_of(artifact.digest, self._split.digest, n_images, wanted, N_BINS)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Returns the smallest and largest value of each tensor.

        Raises:
            StageError: An activation is not finite.
        """
        moments = self._moments()
        pairs = zip(moments.low.tolist(), moments.high.tolist(), strict=True)
        return dict(zip(self._wanted.tensors, pairs, strict=True))

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Returns the mean of each channel, `(n_channels,)`, of the tensors that means are wanted of."""
        moments = self._moments()
        means = [s / n for s, n in zip(moments.sums, moments.sizes, strict=True)]
        return dict(zip([tensor for tensor, _ in self._wanted.means], means, strict=True))

    def histograms(self) -> dict[str, Histogram]:
        """Returns how the values of each tensor are distributed.

        Raises:
            StageError: An activation is not finite.
        """
        ranges = self.ranges()

        def build() -> dict[str, NDArray[np.int64]]:
            shape = (len(ranges), N_BINS)
            counts, zeros = np.zeros(shape, np.int64), np.zeros(len(ranges), np.int64)
            for batch in self._batches():
                for i, (tensor, (low, high)) in enumerate(ranges.items()):
                    found = histogram_of(batch[tensor], low, high)
                    counts[i] += found.counts
                    zeros[i] += found.zeros
            return {"counts": counts, "zeros": zeros}

        kept = self._cache.arrays(f"histograms-{self.key}", build)
        rows = zip(ranges.items(), kept["counts"], kept["zeros"], strict=True)
        return {tensor: Histogram(*span, counts, int(zeros)) for (tensor, span), counts, zeros in rows}

    def _moments(self) -> Moments:
        def build() -> dict[str, NDArray[np.generic]]:
            parts = (moments_of(batch, self._wanted) for batch in self._batches())
            total = next(parts)
            for part in parts:
                total = total.merge(part)
            self._check_finite(total)
            flat = np.concatenate([np.zeros(0), *total.sums])
            return {
                "low": total.low,
                "high": total.high,
                "sums": flat,
                "sizes": total.sizes,
                "n": _lengths(total),
            }

        kept = self._cache.arrays(f"moments-{self.key}", build)
        sums = np.split(kept["sums"], np.cumsum(kept["n"])[:-1]) if len(kept["n"]) else []
        return Moments(kept["low"], kept["high"], tuple(sums), kept["sizes"])  # type: ignore[arg-type]

    def _check_finite(self, moments: Moments) -> None:
        bad = np.flatnonzero(~(np.isfinite(moments.low) & np.isfinite(moments.high)))
        if len(bad):
            raise StageError(
                f"activation {self._wanted.tensors[bad[0]]!r} of the float network is not finite on the "
                f"calibration examples, so it has no range to quantize"
            )

    def _batches(self) -> Iterator[Batch]:
        return activations(self._artifact, self._wanted.tensors, self._split, self._n_images)


def _lengths(moments: Moments) -> NDArray[np.int64]:
    return np.array([len(s) for s in moments.sums], np.int64)


def moments_of(batch: Batch, wanted: Wanted) -> Moments:
    """Returns the moments of one batch of activations."""
    sums = [_channel_sums(batch[tensor], axis) for tensor, axis in wanted.means]
    sizes = [batch[tensor].size // len(s) for (tensor, _), s in zip(wanted.means, sums, strict=True)]
    return Moments(
        np.array([batch[tensor].min() for tensor in wanted.tensors], np.float64),
        np.array([batch[tensor].max() for tensor in wanted.tensors], np.float64),
        tuple(sums),
        np.array(sizes, np.int64),
    )


def _channel_sums(values: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    axis %= values.ndim
    others = tuple(i for i in range(values.ndim) if i != axis)
    return np.asarray(values.sum(axis=others, dtype=np.float64))


def histogram_of(values: NDArray[np.float32], low: float, high: float) -> Histogram:
    """Counts values, of any shape, into `N_BINS` equal bins from `low` to `high`."""
    flat = values[values != 0]
    width = (high - low) / N_BINS
    scale = np.float32(1 / width) if width > np.finfo(np.float32).tiny else np.float32(0)
    # Scaling to integers and counting these is several times as fast as np.histogram.
    bins = ((flat - np.float32(low)) * scale).astype(np.int32)
    counts = np.bincount(np.clip(bins, 0, N_BINS - 1, out=bins), minlength=N_BINS)
    return Histogram(low, high, counts.astype(np.int64), values.size - flat.size)

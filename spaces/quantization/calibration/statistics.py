"""Activation statistics of a float network on calibration data, from one pass in bounded memory.

::

    statistics = Statistics(artifact, wanted, n_images, context)
    statistics.ranges()                  # tensor -> (low, high), exact
    statistics.histograms()              # tensor -> Histogram
    statistics.second_moments()          # tensor -> E[x^2], float
    statistics.means()                   # tensor of `wanted.means` -> E[x_c], (n_channels,)
    statistics.channel_second_moments()  # tensor of `wanted.means` -> E[x_c^2], (n_channels,)

One pass collects everything that the clipping methods need. It resumes from the largest smaller number of
examples whose state is cached, and stores its state at every number in `StageContext.calibration_sizes`, so
that no example runs twice for several numbers. The cache key consists of exactly what the results depend on:
all candidates of a study share them, in any process.
"""

from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.quantization.calibration.activations import activations
from spaces.quantization.calibration.clipping.base import Histogram
from spaces.quantization.calibration.histogram import N_SIDE
from spaces.quantization.calibration.histograms import Histograms, by_tensor, histograms_of
from spaces.quantization.calibration.subsample import STRIDE, TAIL, WHOLE
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Arrays
from spaces.stages.stage import StageContext

PARTS = ("moments", "histograms")  # separate entries, because without clipping the small one suffices


@dataclass(frozen=True)
class Wanted:
    """The tensors whose statistics are collected.

    Attributes:
        tensors: Names of activation tensors (the network's input may be among them).
        means: `(tensor, channel axis)` of the tensors with moments per channel.
    """

    tensors: tuple[str, ...]
    means: tuple[tuple[str, int], ...] = ()


class Statistics:
    """Statistics of one float network on the first examples of the calibration split, computed when asked for.

    Args:
        artifact: The float ONNX model.
        wanted: The tensors.
        n_images: Number of examples; all, if there are fewer.
        context: Calibration split, cache, and the numbers of examples of other candidates.

    Raises:
        StageError: There is no calibration data.
    """

    def __init__(self, artifact: Artifact, wanted: Wanted, n_images: int, context: StageContext) -> None:
        if not context.calibration:
            raise StageError("quantization needs calibration examples, but the stage was given none")
        self._artifact, self._wanted, self._axes = artifact, wanted, dict(wanted.means)
        self._split, self._cache = context.calibration, context.cache
        self._n_images = min(n_images, len(self._split))
        self._smaller = sorted(n for n in set(context.calibration_sizes) if 0 < n < self._n_images)
        self.key = self._key(self._n_images)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Returns the smallest and largest value of each tensor.

        Raises:
            StageError: An activation is not finite.
        """
        pairs = self._moments["ranges"].tolist()
        return {tensor: (low, high) for tensor, (low, high) in zip(self._wanted.tensors, pairs, strict=True)}

    def histograms(self) -> dict[str, Histogram]:
        """Returns the histogram of each tensor, with more than 2048 bins for its larger side.

        Later values of a tensor with millions of values are subsampled, except the tails: see `subsample.py`.

        Raises:
            StageError: An activation is not finite.
        """
        return histograms_of(self._wanted.tensors, self._moments, self._part("histograms"))

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Returns the mean of each channel, `(n_channels,)`, of the tensors in `Wanted.means`."""
        found = self._averages("sums")
        return {tensor: found[tensor] for tensor in self._axes}

    def channel_second_moments(self) -> dict[str, NDArray[np.float64]]:
        """Returns the mean square of each channel, `(n_channels,)`, of the tensors in `Wanted.means`."""
        found = self._averages("squares")
        return {tensor: found[tensor] for tensor in self._axes}

    def second_moments(self) -> dict[str, float]:
        """Returns the mean square of each tensor."""
        found = self._averages("squares")
        return {tensor: float(found[tensor].mean()) for tensor in self._wanted.tensors}

    def _averages(self, name: str) -> dict[str, NDArray[np.float64]]:
        names = dict.fromkeys((*self._wanted.tensors, *self._axes))
        rows = zip(names, by_tensor(self._moments, name), self._moments["n_values"].tolist(), strict=True)
        return {tensor: total / n_values for tensor, total, n_values in rows}

    @cached_property
    def _moments(self) -> Arrays:
        return self._part("moments")

    def _part(self, part: str) -> Arrays:
        cached = self._cached(part, self._n_images)
        return self._run()[part] if cached is None else cached

    def _run(self) -> dict[str, Arrays]:
        """Runs the network over the examples that are not counted yet, and caches the state at each stop."""
        histograms, done = self._start()
        names = (self._artifact.input.name, *histograms.sums)
        stored: dict[str, Arrays] = {}
        stops = (*self._smaller, self._n_images)
        stream = activations(self._artifact, names, self._split, self._n_images, done, self._smaller)
        with closing(stream) as batches:
            for batch in batches:
                histograms.add(batch)
                done += len(batch[self._artifact.input.name])
                if done in stops:
                    parts = {"moments": histograms.moments(), "histograms": histograms.histograms()}
                    stored = {part: self._store(part, done, arrays) for part, arrays in parts.items()}
        return stored

    def _start(self) -> tuple[Histograms, int]:
        """Returns the cached state with the most examples, or an empty one, and its number of examples."""
        histograms = Histograms(self._wanted.tensors, self._axes)
        for n_images in reversed(self._smaller):
            moments, counts = (self._cached(part, n_images) for part in PARTS)
            if moments is not None and counts is not None:
                histograms.resume(moments, counts)
                return histograms, n_images
        return histograms, 0

    def _cached(self, part: str, n_images: int) -> Arrays | None:
        def build() -> Arrays:
            raise _NotCachedError

        try:
            return self._cache.arrays(f"{part}-{self._key(n_images)}", build)
        except _NotCachedError:
            return None

    def _store(self, part: str, n_images: int, arrays: Arrays) -> Arrays:
        return self._cache.arrays(f"{part}-{self._key(n_images)}", lambda: arrays)

    def _key(self, n_images: int) -> str:
        counting = (N_SIDE, WHOLE, STRIDE, TAIL)
        return digest_of(self._artifact.digest, self._split.digest, n_images, self._wanted, counting)


class _NotCachedError(Exception):
    """The cache does not hold an entry."""

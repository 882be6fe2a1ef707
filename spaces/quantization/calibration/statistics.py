"""What the activations of a float network are like on calibration data: one pass over the examples, in bounded memory.

::

    statistics = Statistics(artifact, wanted, n_images, context)
    statistics.ranges()                  # tensor -> (low, high), exact
    statistics.histograms()              # tensor -> Histogram
    statistics.second_moments()          # tensor -> E[x^2], float
    statistics.means()                   # tensor of `wanted.means` -> E[x_c], (n_channels,)
    statistics.channel_second_moments()  # tensor of `wanted.means` -> E[x_c^2], (n_channels,)

Everything that any clipping method needs comes from the same pass. It begins where the largest smaller number of
examples that is known already ended, and notes where it stands at every number that
`StageContext.calibration_sizes` announces, so that no example runs twice for several numbers. Results are
cached under what they depend on and nothing else: all candidates of a study share them, in any process.
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

PARTS = ("moments", "histograms")  # apart, because without clipping the small one is enough


@dataclass(frozen=True)
class Wanted:
    """What statistics are wanted of.

    Attributes:
        tensors: Names of activation tensors (the network's input may be among them).
        means: `(tensor, channel axis)` of those whose moments by channel are wanted too.
    """

    tensors: tuple[str, ...]
    means: tuple[tuple[str, int], ...] = ()


class Statistics:
    """Statistics of one float network on the first examples of the calibration split, computed when asked for.

    Args:
        artifact: The float ONNX model.
        wanted: The tensors.
        n_images: How many examples; all, if there are fewer.
        context: Calibration split, cache, and the numbers of examples that will be asked for besides.

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
        """Returns how the values of each tensor are distributed; at least 2048 bins cover its larger side.

        Of a tensor with millions of values the later ones are counted by sample, but for the tails: see `thinning.py`.

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
        found = self._known(part, self._n_images)
        return self._run()[part] if found is None else found

    def _run(self) -> dict[str, Arrays]:
        """Runs the network over the examples that are not known yet, and keeps what was counted."""
        histograms, done = self._start()
        names = (self._artifact.input.name, *histograms.sums)
        kept: dict[str, Arrays] = {}
        stops = (*self._smaller, self._n_images)
        stream = activations(self._artifact, names, self._split, self._n_images, done, self._smaller)
        with closing(stream) as batches:
            for batch in batches:
                histograms.add(batch)
                done += len(batch[self._artifact.input.name])
                if done in stops:
                    parts = {"moments": histograms.moments(), "histograms": histograms.histograms()}
                    kept = {part: self._kept(part, done, arrays) for part, arrays in parts.items()}
        return kept

    def _start(self) -> tuple[Histograms, int]:
        """Returns what is known of the first examples, and of how many."""
        histograms = Histograms(self._wanted.tensors, self._axes)
        for n_images in reversed(self._smaller):
            moments, counts = (self._known(part, n_images) for part in PARTS)
            if moments is not None and counts is not None:
                histograms.take_up(moments, counts)
                return histograms, n_images
        return histograms, 0

    def _known(self, part: str, n_images: int) -> Arrays | None:
        def build() -> Arrays:
            raise _UnknownError

        try:
            return self._cache.arrays(f"{part}-{self._key(n_images)}", build)
        except _UnknownError:
            return None

    def _kept(self, part: str, n_images: int, arrays: Arrays) -> Arrays:
        return self._cache.arrays(f"{part}-{self._key(n_images)}", lambda: arrays)

    def _key(self, n_images: int) -> str:
        counting = (N_SIDE, WHOLE, STRIDE, TAIL)
        return digest_of(self._artifact.digest, self._split.digest, n_images, self._wanted, counting)


class _UnknownError(Exception):
    """The cache does not hold an entry."""

"""A split of which some examples are degraded."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.quantization.calibration.degradations import DEGRADATIONS
from spaces.stages.artifact import Split
from spaces.stages.pixels import Pixels, pixels_of

RECIPE = 1  # to be raised with every change of what a degraded example looks like
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class DegradedSplit:
    """The examples of another split, a share of which carry one degradation each; implements `spaces.stages.artifact.Split`.

    Which examples are degraded, how and how much follows from the seed and from their places, so that batches of any size,
    and the first examples of the whole, hold the same ones. Of a larger share, a smaller one is a part.

    Attributes:
        split: The clean examples; they must be images.
        seed: Seed of what is drawn.
        share: Share of the examples that are degraded, 0 to 1.
        kinds: Names of the degradations, of which each such example gets one.
    """

    split: Split
    seed: int
    share: float = 1.0
    kinds: tuple[str, ...] = tuple(DEGRADATIONS)

    @cached_property
    def digest(self) -> str:
        """Digest of the examples and of what is done to them."""
        stated = getattr(self.split, "pixels", None)
        return digest_of(self.split.digest, self.seed, self.share, self.kinds, stated, RECIPE)

    @cached_property
    def pixels(self) -> Pixels:
        """How inputs relate to pixels.

        Raises:
            StageError: The examples are no images.
        """
        found = pixels_of(self.split)
        if found is None:
            raise StageError("only images can be degraded: finite inputs with 3 axes and 1 or 3 channels")
        return found

    def __len__(self) -> int:
        return len(self.split)

    def batches(
        self, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yields inputs and labels in the clean split's order."""
        first = 0
        for inputs, labels in self.split.batches(batch_size, limit):
            chosen = np.flatnonzero(is_degraded(np.arange(first, first + len(inputs)), self.share))
            if len(chosen):
                inputs = inputs.copy()
                inputs[chosen] = self.pixels.inputs(self._degraded(inputs[chosen], first + chosen))
            first += len(inputs)
            yield inputs, labels

    def images(self, n: int) -> NDArray[np.uint8]:
        """Returns the first `n` examples as images, every one degraded: `(n, height, width, channels)` bytes."""
        found: list[NDArray[np.uint8]] = []
        for inputs, _ in self.split.batches(1, n):
            found.append(self._degraded(inputs, np.array([len(found)])))
        return np.concatenate(found)

    def _degraded(self, inputs: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = []
        for image, place in zip(self.pixels.images(inputs), places.tolist(), strict=True):
            random = np.random.default_rng([self.seed, place])
            kind = self.kinds[int(random.integers(len(self.kinds)))]
            found.append(DEGRADATIONS[kind](image, random))
        return np.stack(found)


def is_degraded(places: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Returns which of the examples, given by their places in the split, `(n,)`, belong to the share.

    Places are spread over [0, 1) by multiples of the golden ratio, which fill it evenly from the first on (Weyl 1916): any
    stretch of examples has nearly the share.
    """
    return (0.5 + places * _GOLDEN) % 1.0 < share

"""A split in which a share of the examples is degraded."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.quantization.calibration.degradations import DEGRADATIONS
from spaces.stages.artifact import Split
from spaces.stages.inputs import sole
from spaces.stages.pixels import Pixels, pixels_of

RECIPE = 1  # version of the degradations; raise it with every change of degraded examples
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class DegradedSplit:
    """The examples of another split, a share of them with one degradation each; implements `Split`.

    Selection, kind and strength depend only on the seed and an example's position in the split, so that they
    are the same for all batch sizes and limits. The examples selected for a smaller share are a subset of
    those for a larger one.

    Attributes:
        split: The clean examples; they must be images.
        seed: Seed of kind and strength.
        share: Share of degraded examples, 0 to 1.
        kinds: Names of the degradations, one of which is drawn for each degraded example.
    """

    split: Split
    seed: int
    share: float = 1.0
    kinds: tuple[str, ...] = tuple(DEGRADATIONS)

    @cached_property
    def digest(self) -> str:
        """Digest of the examples and of the degradations."""
        stated = getattr(self.split, "pixels", None)
        return digest_of(self.split.digest, self.seed, self.share, self.kinds, stated, RECIPE)

    @cached_property
    def pixels(self) -> Pixels:
        """The linear map between inputs and pixels.

        Raises:
            StageError: The examples are not images.
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
        for given, labels in self.split.batches(batch_size, limit):
            inputs = sole(given, "degradation")
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
            found.append(self._degraded(sole(inputs, "degradation"), np.array([len(found)])))
        return np.concatenate(found)

    def _degraded(self, inputs: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.uint8]:
        found = []
        for image, place in zip(self.pixels.images(inputs), places.tolist(), strict=True):
            random = np.random.default_rng([self.seed, place])
            kind = self.kinds[int(random.integers(len(self.kinds)))]
            found.append(DEGRADATIONS[kind](image, random))
        return np.stack(found)


def is_degraded(places: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Returns which examples, given by their positions in the split, are degraded, `(n,)`.

    Positions are mapped to [0, 1) by multiples of the golden ratio, a low-discrepancy sequence (Weyl 1916),
    so that any range of examples has nearly this share.
    """
    return (0.5 + places * _GOLDEN) % 1.0 < share

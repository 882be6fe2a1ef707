"""A split of images and of images that belong to them, such as masks, both stored on disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import Examples
from spaces.digest import digest_of
from spaces.stages.array_split import Indices, StoredRows, Transform
from spaces.stages.pixels import CHANNELS, Pixels

_CHUNK = 64  # targets that are checked at once

Mapped = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class AsStored:
    """Maps stored targets to labels: as they are."""

    def __call__(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Returns the targets."""
        return raw


@dataclass(frozen=True, eq=False)
class StoredPairs:
    """One split of a task, of which a batch at a time is in memory; implements `spaces.stages.artifact.Split`.

    Attributes:
        raw: The images, `(n, height, width, channels)` uint8.
        targets: What belongs to each, `(n, ...)`.
        transform: Maps images to inputs.
        to_labels: Maps targets to labels; its `repr` shows everything that labels depend on.
    """

    raw: StoredRows
    targets: StoredRows
    transform: Transform
    to_labels: Mapped = AsStored()

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the images, the targets and how they are mapped."""
        stored = [(rows.content, rows.rows.tobytes()) for rows in (self.raw, self.targets)]
        return digest_of(self.transform, self.to_labels, stored)

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def labels(self) -> NDArray[Any]:
        """All labels, `(n, ...)`, read from disk: for a split whose labels fit in memory."""
        return self.to_labels(self.targets[:])

    def batches(
        self, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yields inputs `(b, *input.shape)` float32 and labels `(b, ...)`, always in the same order."""
        n = len(self) if limit is None else min(limit, len(self))
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            yield self.transform(self.raw[rows]), self.to_labels(self.targets[rows])

    @cached_property
    def pixels(self) -> Pixels | None:
        """The map between inputs and pixels; None if the stored images are none of bytes."""
        first = self.raw[:1]
        return self.transform.pixels() if first.dtype == np.uint8 and first.shape[-1] in CHANNELS else None

    def subset(self, indices: Indices) -> "StoredPairs":
        """Returns these examples, in this order, without reading them."""
        return replace(self, raw=self.raw.select(indices), targets=self.targets.select(indices))

    def labelled(self, to_labels: Mapped) -> "StoredPairs":
        """Returns the examples with labels of another mapping."""
        return replace(self, to_labels=to_labels)


def labelled_pairs(
    examples: Examples, check: Callable[[NDArray[Any], Examples, int], None], to_labels: Mapped
) -> Examples:
    """Returns stored pairs with labels of another mapping, whose targets are checked a part at a time and stay on disk.

    Args:
        examples: Their split is `StoredPairs`.
        check: Raises InputError if a target is wrong; gets targets `(b, ...)`, the examples and the number of the first one.
        to_labels: Maps targets to labels.

    Raises:
        InputError: A target is wrong.
    """
    split = cast(StoredPairs, examples.split)
    for start in range(0, len(split), _CHUNK):
        check(split.targets[start : start + _CHUNK], examples, start)
    return replace(examples, split=split.labelled(to_labels))

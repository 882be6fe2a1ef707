"""A split whose labels hold the inputs, because an autoencoder is compared with its own input."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.data import ExampleSplit
from spaces.digest import digest_of
from spaces.stages.array_split import Indices
from spaces.stages.pixels import Pixels

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class ReconstructionSplit:
    """Examples of one input; implements `spaces.stages.artifact.Split`. Labels are made batch by batch.

    Attributes:
        examples: The examples; their labels do not matter.
        heads: Flag and clip of each, `(n, 2)` float32.
    """

    examples: ExampleSplit
    heads: NDArray[np.float32]

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the examples and the heads."""
        return digest_of(self.examples.digest, self.heads.tobytes())

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def labels(self) -> NDArray[np.float32]:
        """All labels, `(n, 2 + k)`: the heads, and the values of the input."""
        return np.concatenate([labels for _, labels in self.batches(_CHUNK)])

    def batches(
        self, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
        """Yields inputs `(b, *input.shape)` and labels `(b, 2 + k)` float32, always in the same order."""
        start = 0
        for inputs, _ in self.examples.batches(batch_size, limit):
            assert isinstance(inputs, np.ndarray)
            heads = self.heads[start : start + len(inputs)]
            start += len(inputs)
            yield inputs, np.concatenate([heads, inputs.reshape(len(inputs), -1)], axis=1, dtype=np.float32)

    @property
    def pixels(self) -> Pixels | None:
        """The map between inputs and pixels, if the examples state it."""
        return getattr(self.examples, "pixels", None)

    def subset(self, indices: Indices) -> "ReconstructionSplit":
        """Returns these examples, in this order."""
        return replace(self, examples=self.examples.subset(indices), heads=self.heads[indices])

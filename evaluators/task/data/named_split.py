"""A split of examples that have several inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.stages.array_split import ArraySplit, Indices
from spaces.stages.inputs import Inputs


@dataclass(frozen=True, eq=False)
class NamedSplit:
    """Arrays for each of several inputs; implements `spaces.stages.artifact.Split`.

    Attributes:
        parts: The examples of each input by its name, equally many, with the same labels.
    """

    parts: Mapping[str, ArraySplit]

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the names and the splits of all inputs."""
        return digest_of([(name, part.digest) for name, part in self.parts.items()])

    @property
    def labels(self) -> NDArray[Any]:
        """`(n, ...)`."""
        return next(iter(self.parts.values())).labels

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Inputs, NDArray[Any]]]:
        """Yields inputs by name and labels `(b, ...)`, always in the same order."""
        streams = [part.batches(batch_size, limit) for part in self.parts.values()]
        for batches in zip(*streams, strict=True):
            yield (
                dict(zip(self.parts, (inputs for inputs, _ in batches), strict=True)),
                batches[0][1],
            )

    def subset(self, indices: Indices) -> "NamedSplit":
        """Returns these examples, in this order."""
        return NamedSplit({name: part.subset(indices) for name, part in self.parts.items()})

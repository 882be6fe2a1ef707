"""Arrays as a split: raw examples, labels, and how examples become model inputs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from spaces.stages.pixels import CHANNELS, Pixels

Indices = NDArray[np.int64]


class Transform(Protocol):
    """Maps raw examples to model inputs; its `repr` shows everything that the inputs depend on."""

    def __call__(self, raw: NDArray[np.generic]) -> NDArray[Any]:
        """Returns the inputs `(b, *input.shape)` of raw examples `(b, ...)`."""

    def pixels(self) -> Pixels | None:
        """Returns the linear map between inputs and pixels, for raw examples that are uint8 images."""


@dataclass(frozen=True)
class StoredRows:
    """Rows of a memory-mapped `.npy` file: cheap to pickle, and shared between processes.

    Attributes:
        path: The file.
        content: Digest of the file's content.
        rows: Indices of the rows, in order, `(n,)`.
    """

    path: Path
    content: str
    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> NDArray[np.generic]:
        stored = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return np.asarray(stored[self.rows[index]])

    def select(self, indices: Indices) -> "StoredRows":
        """Returns the selected rows, without reading them."""
        return StoredRows(self.path, self.content, self.rows[indices])


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """One split of a task; implements `spaces.stages.artifact.Split`.

    Attributes:
        raw: Raw examples `(n, ...)`, in memory or stored.
        labels: `(n, ...)` of any type: `(n,)` int64 for classes; `(n,)` objects, an array each, where they are ragged.
        transform: Maps raw examples to inputs, batch by batch; None if raw examples are inputs already.
    """

    raw: NDArray[np.generic] | StoredRows
    labels: NDArray[Any]
    transform: Transform | None = None

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the examples, the labels and the transform."""
        hasher = sha256(repr(self.transform).encode())
        if isinstance(self.raw, StoredRows):
            hasher.update(f"{self.raw.content} {len(self.raw)}".encode() + self.raw.rows.tobytes())
        else:
            hasher.update(f"{self.raw.dtype} {self.raw.shape}".encode())
            hasher.update(np.ascontiguousarray(self.raw).tobytes())
        hasher.update(label_bytes(self.labels))
        return hasher.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
        """Yields inputs `(b, *input.shape)` float32 and labels `(b, ...)`, always in the same order."""
        n = len(self) if limit is None else min(limit, len(self))
        for start in range(0, n, batch_size):
            rows = slice(start, min(start + batch_size, n))
            yield self._inputs(self.raw[rows]), self.labels[rows]

    @property
    def inputs(self) -> NDArray[np.float32]:
        """All inputs `(n, *input.shape)` at once."""
        return self._inputs(self.raw[:])

    @cached_property
    def pixels(self) -> Pixels | None:
        """The map between inputs and pixels; None if there is no transform or raw examples are not images."""
        first = self.raw[:1]
        is_image = first.dtype == np.uint8 and first.ndim == 4 and first.shape[-1] in CHANNELS
        return self.transform.pixels() if is_image and self.transform is not None else None

    def subset(self, indices: Indices) -> "ArraySplit":
        """Returns these examples, in this order."""
        raw = self.raw.select(indices) if isinstance(self.raw, StoredRows) else self.raw[indices]
        return ArraySplit(raw, self.labels[indices], self.transform)

    def _inputs(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        return cast(NDArray[np.float32], raw) if self.transform is None else self.transform(raw)


def label_bytes(labels: NDArray[Any]) -> bytes:
    """Returns bytes that differ wherever labels do; ragged labels with their shapes and types."""
    if labels.dtype != object:
        plain = labels.dtype == np.int64 and labels.ndim == 1
        header = b"" if plain else f"{labels.dtype} {labels.shape}".encode()
        return header + np.ascontiguousarray(labels).tobytes()
    arrays = [np.asarray(label) for label in labels]
    return b"".join(f"{a.dtype} {a.shape}".encode() + np.ascontiguousarray(a).tobytes() for a in arrays)


def ragged(labels: Iterable[Any]) -> NDArray[np.object_]:
    """Returns arrays of any shapes as the labels of a split: `(n,)` objects."""
    arrays = [np.asarray(label) for label in labels]
    joined = np.empty(len(arrays), object)
    for position, array in enumerate(arrays):
        joined[position] = array
    return joined

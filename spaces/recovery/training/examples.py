"""The examples of a split, in a new random order every epoch: from memory if they fit, else through a shuffle buffer."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.errors import StageError
from spaces.stages.artifact import Split
from spaces.stages.inputs import packed

IN_MEMORY_BYTES = 2 * 2**30
_CHUNK = 1024  # examples that are read at once

Part = tuple[Tensor, Tensor]


class Examples(Protocol):
    """The source of a training's batches."""

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Part]:
        """Yields inputs `(b, *input.shape)` and labels `(b, ...)` of every example once, `n_batches` times.

        Args:
            batch_size: Examples per batch; the last may have fewer. A last batch of one example is omitted,
                since BatchNorm has no variance then.
            generator: Source of the random order.
        """


def n_batches(n_examples: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch."""
    return n_examples // batch_size + (n_examples % batch_size > 1)


def first_inputs(split: Split, n: int = 2) -> Tensor:
    """Returns the first examples `(n, *input.shape)`, contiguous, or all if there are fewer."""
    inputs, _ = next(iter(split.batches(n, limit=n)))
    return torch.from_numpy(np.ascontiguousarray(packed(inputs)))


def examples_of(split: Split, device: torch.device, most_bytes: int = IN_MEMORY_BYTES) -> Examples:
    """Returns the split's examples: on the device if they fit, else streamed.

    Args:
        split: The train split.
        device: Device of the batches.
        most_bytes: Bytes of float32 inputs to hold in memory at most.

    Raises:
        StageError: There are fewer than two examples.
    """
    if len(split) < 2:
        raise StageError(f"the train split has {len(split)} examples (task.train); training needs at least 2")
    first, _ = next(iter(split.batches(1, limit=1)))
    example_bytes = 4 * prod(packed(first).shape[1:])
    if example_bytes * len(split) <= most_bytes:
        return _Held(*_joined(list(_parts(split)), device))
    return _Streamed(split, device, max(2, most_bytes // example_bytes))


@dataclass(frozen=True)
class _Held:
    inputs: Tensor
    labels: Tensor

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Part]:
        order = torch.randperm(len(self.labels), generator=generator).to(self.labels.device)
        for rows in torch.split(order, batch_size)[: n_batches(len(order), batch_size)]:
            yield self.inputs[rows], self.labels[rows]


@dataclass(frozen=True)
class _Streamed:
    """Shuffle buffer: a random half of the full buffer is yielded before more examples are read."""

    split: Split
    device: torch.device
    n_buffered: int

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[Part]:
        left = n_batches(len(self.split), batch_size)
        for inputs, labels in self._shuffled(batch_size, generator):
            for part in zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True):
                if left == 0:
                    return
                left -= 1
                yield part[0].to(self.device), part[1].to(self.device)

    def _shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Part]:
        """Yields chunks of shuffled examples; all but the last consist of whole batches."""
        held: list[Part] = []
        n_held = 0
        for part in _parts(self.split):
            held.append(part)
            n_held += len(part[1])
            n_out = min(n_held, max(batch_size, n_held // 2)) // batch_size * batch_size
            if n_held < self.n_buffered or not n_out:
                continue
            inputs, labels = _shuffle(held, generator)
            yield inputs[:n_out], labels[:n_out]
            held, n_held = [(inputs[n_out:], labels[n_out:])], n_held - n_out
        yield _shuffle(held, generator)


def _parts(split: Split) -> Iterator[Part]:
    for inputs, labels in split.batches(_CHUNK):
        yield torch.from_numpy(packed(inputs)), labels_tensor(labels)


def labels_tensor(labels: NDArray[Any]) -> Tensor:
    """Returns labels `(b, ...)` for a loss: whole numbers as int64, others as float32; -1 where they are ragged, thus none."""
    if labels.dtype == object:
        return torch.full((len(labels),), -1)
    dtype = np.float32 if labels.dtype.kind == "f" else np.int64
    return torch.from_numpy(np.ascontiguousarray(labels, dtype))


def _joined(parts: list[Part], device: torch.device) -> Part:
    inputs, labels = zip(*parts, strict=True)
    return torch.cat(inputs).to(device), torch.cat(labels).to(device)


def _shuffle(parts: list[Part], generator: torch.Generator) -> Part:
    inputs, labels = _joined(parts, torch.device("cpu"))
    order = torch.randperm(len(labels), generator=generator)
    return inputs[order], labels[order]

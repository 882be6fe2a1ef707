"""Remarks on examples that are in two splits at once."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.data.named_split import NamedSplit
from evaluators.task.data.prefix_split import PrefixSplit
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Split
from spaces.stages.inputs import parts_of

MOST_BYTES = 2**30  # of the splits that are compared: a second or two
_LEAST_ROW_BYTES = 2048  # as which a smaller example counts, because it takes as long
_BATCH = 256

# what is compared with what, and what the second has been used for; calibration may share examples with any
_PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"))
_USE = {"train": "training", "validation": "the search"}


def copy_notes(splits: Mapping[str, Split], most_bytes: int = MOST_BYTES) -> tuple[str, ...]:
    """Returns remarks on examples of validation and test that are exact copies of others: of training, or of validation.

    Inputs are compared, not labels, before they are transformed.

    Args:
        splits: The splits by name.
        most_bytes: Size of the splits above which they are not compared, which a remark then says.
    """
    splits = {
        name: split.examples if isinstance(split, PrefixSplit) else split for name, split in splits.items()
    }
    pairs = [(one, other) for one, other in _PAIRS if all(_comparable(splits[name]) for name in (one, other))]
    names = dict.fromkeys(name for pair in pairs for name in pair)
    size = sum(_size(splits[name]) for name in names)
    if size > most_bytes:
        return (
            f"whether examples are in two splits was not checked: {' and '.join(names)} have {size / 2**30:.1f} GiB of "
            f"examples, and up to {most_bytes / 2**30:g} GiB are compared",
        )
    hashes = {name: _hashes(splits[name]) for name in names}
    notes = []
    for one, other in pairs:
        n = int(np.isin(hashes[one], hashes[other]).sum())
        if n:
            verb = "is an exact copy" if n == 1 else "are exact copies"
            notes.append(
                f"{n:,} of {len(hashes[one]):,} {one} examples {verb} of {other} examples, which {_USE[other]} has seen: the "
                f"quality on the {one} split may be too good"
            )
    return tuple(notes)


def _comparable(split: Split) -> bool:
    return len(split) > 0 and not hasattr(split, "rollout")  # episodes differ by their seeds


def _raws(split: Split) -> list[Any] | None:
    """Returns the stored examples of each input, which can be sliced; None if only inputs are to be had."""
    if isinstance(split, ArraySplit):
        return [split.raw]
    return [part.raw for part in split.parts.values()] if isinstance(split, NamedSplit) else None


def _rows(split: Split, limit: int) -> Iterator[list[NDArray[Any]]]:
    """Yields the first examples in batches, an array for each input."""
    raws = _raws(split)
    if raws is None:
        yield from (parts_of(inputs) for inputs, _ in split.batches(_BATCH, limit))
        return
    for start in range(0, limit, _BATCH):
        yield [np.asarray(raw[start : min(start + _BATCH, limit)]) for raw in raws]


def _size(split: Split) -> int:
    (first,) = _rows(split, 1)
    return len(split) * max(sum(array.nbytes for array in first), _LEAST_ROW_BYTES)


def _hashes(split: Split) -> NDArray[np.uint64]:
    found = []
    for arrays in _rows(split, len(split)):
        for parts in zip(*map(np.ascontiguousarray, arrays), strict=True):
            hasher = blake2b(digest_size=8)
            for part in parts:
                hasher.update(part.tobytes())
            found.append(hasher.digest())
    return np.frombuffer(b"".join(found), np.uint64)

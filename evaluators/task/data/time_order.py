"""Splits that follow one another in time."""

from collections.abc import Mapping

import numpy as np

from spaces.stages.array_split import Indices

ORDER = ("train", "calibration", "validation", "test")  # oldest first


def in_order(spans: Indices, sizes: Mapping[str, int | None], gap: int = 0) -> dict[str, Indices]:
    """Divides examples by time: the test split has the latest ones, and training the earliest.

    Examples that end after one of a later split begins, or fewer than `gap` positions before, are in no split.

    Args:
        spans: `(n, 2)`: the first position of each example in time, and the one after its last.
        sizes: Number of examples of each split, before any are left out; None (at most once) takes the remaining ones.
        gap: Positions between two splits.

    Returns:
        Indices of each split, in the order of time.
    """
    order = np.argsort(spans[:, 0], kind="stable")
    rest = len(spans) - sum(size or 0 for size in sizes.values())
    parts: dict[str, Indices] = {}
    stop, begin = len(spans), None
    for name in reversed([name for name in ORDER if name in sizes]):
        size = sizes[name]
        start = stop - (rest if size is None else size)
        rows = order[start:stop]
        if begin is not None:
            rows = rows[spans[rows, 1] + gap <= begin]
        if len(rows):
            begin = int(spans[rows, 0].min())
        parts[name], stop = rows, start
    return parts

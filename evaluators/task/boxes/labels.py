"""The label of an image in which boxes are to be found."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("x1", "y1", "x2", "y2", "class", "ignored")
COUNTS, IGNORED, CROWD = 0, 1, 2


class BoxLabels(NamedTuple):
    """A label `(m, 6)` float64 by its columns, see `COLUMNS`.

    Attributes:
        boxes: Corners `(m, 4)`: x1, y1, x2, y2, in pixels of the network's input.
        classes: `(m,)` int64, from 0 on.
        ignored: `(m,)`: 0 for a box that counts; 1 for one that need not be found: a detection of it is neither right nor
            wrong; 2 for a crowd, which is such a box for any number of detections, each within it by its own area.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    ignored: NDArray[np.int64]


def box_labels(label: NDArray[np.generic]) -> BoxLabels:
    """Returns a label `(m, 5)` or `(m, 6)` by its columns; without the sixth all boxes count."""
    rows = np.asarray(label, np.float64)
    ignored = rows[:, 5] if rows.shape[1] > 5 else np.zeros(len(rows))
    return BoxLabels(rows[:, :4], rows[:, 4].astype(np.int64), ignored.astype(np.int64))


def label_rows(
    boxes: NDArray[np.generic], classes: NDArray[np.generic], ignored: NDArray[np.generic] | None = None
) -> NDArray[np.float64]:
    """Returns a label `(m, 6)` of boxes `(m, 4)`, classes `(m,)` and ignored `(m,)`; None: all boxes count."""
    states = np.zeros(len(boxes)) if ignored is None else ignored
    columns = [
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(classes)[:, None],
        np.asarray(states)[:, None],
    ]
    return np.concatenate(columns, axis=1, dtype=np.float64)

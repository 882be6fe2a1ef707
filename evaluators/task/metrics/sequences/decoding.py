"""From the outputs of a CTC network to sequences of symbols (Graves et al. 2006, "Connectionist temporal classification")."""

import numpy as np
from numpy.typing import NDArray

from spaces import extras
from spaces.task_losses import IGNORED

Symbols = list[int]


def greedy(outputs: NDArray[np.float32], blank: int) -> list[Symbols]:
    """Returns the symbols of each example: the largest output of each step, repetitions merged, blanks left out.

    Args:
        outputs: `(b, steps, n_classes)`.
        blank: The class that is no symbol; -1 is the last.
    """
    best = outputs.argmax(axis=2)
    is_new = np.ones(best.shape, bool)
    is_new[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = is_new & (best != blank % outputs.shape[2])
    return [row[mask].tolist() for row, mask in zip(best, kept, strict=True)]


def transcripts(labels: NDArray[np.int64]) -> list[Symbols]:
    """Returns the symbols of each example, from labels `(b, most)` with -1 behind the last symbol."""
    return [row[row != IGNORED].tolist() for row in labels]


def words(symbols: Symbols, separator: int) -> list[tuple[int, ...]]:
    """Returns the runs of symbols between separators."""
    found: list[list[int]] = [[]]
    for symbol in symbols:
        if symbol == separator:
            found.append([])
        else:
            found[-1].append(symbol)
    return [tuple(word) for word in found if word]


def check_extra() -> None:
    """Raises ConfigError if the package that counts edits is missing."""
    extras.check_extra("rapidfuzz", "task=transcripts")

"""Error rates of transcripts: edits over the length of the reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.metric import Direction, SumMetric
from evaluators.task.metrics.sequences.decoding import greedy, transcripts, words
from spaces.extras import extra_module


class ErrorRate(SumMetric):
    """Insertions, deletions and substitutions of symbols over the number of symbols in the references, of all examples together.

    Above 100 % if there are more edits than symbols.

    Args:
        blank: The class that is no symbol; -1 is the last.
        separator: The class that separates words, to count words in place of symbols; None counts symbols.
    """

    unit = "%"
    scale = 100.0
    direction: Direction = "minimize"

    def __init__(self, blank: int = 0, separator: int | None = None) -> None:
        self.name = "symbol_error_rate" if separator is None else "word_error_rate"
        self.blank, self.separator = blank, separator

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns edits and length of the reference, `(b, 2)`.

        Args:
            outputs: `(b, steps, n_classes)`.
            labels: `(b, most)`: symbols, then -1.
        """
        return edits(self._units(greedy(outputs, self.blank)), self._units(transcripts(labels)))

    def _units(self, all_symbols: Sequence[list[int]]) -> Sequence[Sequence[Any]]:
        separator = self.separator
        return all_symbols if separator is None else [words(symbols, separator) for symbols in all_symbols]

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the rate, from the sums `(m, 2)`."""
        return _rates(sums)


class SameTranscripts(SumMetric):
    """1 minus the error rate of the decoded symbols, the other model's being the reference.

    Args:
        blank: The class that is no symbol; -1 is the last.
    """

    name = "agreement"
    unit = "%"
    scale = 100.0

    def __init__(self, blank: int = 0) -> None:
        self.blank = blank

    def statistics(self, outputs: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns edits and length of the other model's symbols, `(b, 2)`; both are `(b, steps, n_classes)`."""
        return edits(greedy(outputs, self.blank), greedy(labels, self.blank))

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the agreement, from the sums `(m, 2)`."""
        return 1 - _rates(sums)


def _rates(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns edits over lengths; without a single symbol in the references each edit counts as one of one."""
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1))


def edits(found: Sequence[Sequence[Any]], references: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
    """Returns the least number of edits from each reference, and its length, `(b, 2)`."""
    distance = extra_module("rapidfuzz.distance", "the error rate of transcripts").Levenshtein.distance
    pairs = zip(found, references, strict=True)
    rows = [(distance(one, reference), len(reference)) for one, reference in pairs]
    return np.array(rows, np.float64).reshape(-1, 2)

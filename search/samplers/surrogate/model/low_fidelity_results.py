"""What looks have said so far of the candidates of one study."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import LowFidelityEvaluations, Params, PartialResult, key_of

Array = NDArray[np.float64]
Key = frozenset[tuple[str, Any]]


class Evidence:
    """Takes looks, and keeps what they said.

    Candidates go by their keys (`key_of`), which callers keep.

    Args:
        low_fidelity: Where they come from.

    Attributes:
        spent: What the looks have cost, in full evaluations. Building and opening a candidate counts as much as the
            smallest look: a clock would make equal seeds end differently.
    """

    def __init__(self, low_fidelity: LowFidelityEvaluations) -> None:
        self._low_fidelity = low_fidelity
        self._found: dict[Key, list[PartialResult]] = {}
        self._blind: set[Key] = set()
        self.spent = 0.0

    def further(self, candidate: Params, n_examples: int) -> None:
        """Looks at a candidate for longer than before; a first look is the shortest, so that all can be compared by it."""
        key = key_of(candidate)
        if key not in self._found and n_examples > self._low_fidelity.sizes[0]:
            self._take(key, candidate, self._low_fidelity.sizes[0])
        if key not in self._blind:
            self._take(key, candidate, n_examples)

    def _take(self, key: Key, candidate: Params, n_examples: int) -> None:
        look = self._low_fidelity.short(candidate, n_examples)
        if look is None:
            self._blind.add(key)
            return
        before = self._seen(key)
        self.spent += (
            max(look.n_examples - before, 0) + self._low_fidelity.sizes[0]
        ) / self._low_fidelity.n_full
        self._found.setdefault(key, []).append(look)

    def first(self, key: Key) -> PartialResult | None:
        """Returns the first look at a candidate: all candidates' first looks see the same examples."""
        found = self._found.get(key)
        return found[0] if found else None

    def longest(self, key: Key) -> PartialResult | None:
        """Returns the longest look at a candidate."""
        found = self._found.get(key)
        return found[-1] if found else None

    def examples(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """Returns how many examples each candidate was run on, `(n,)`; -1 where looks fail."""
        return np.array([-1 if k in self._blind else self._seen(k) for k in keys], np.int64)

    def _seen(self, key: Key) -> int:
        return self._found[key][-1].n_examples if key in self._found else 0

    def exhausted(self, keys: Sequence[Key]) -> NDArray[np.bool_]:
        """Returns where no longer look is possible, `(n,)`."""
        seen = self.examples(keys)
        return np.asarray((seen < 0) | (seen >= self._low_fidelity.sizes[-1]))

"""The low-fidelity evaluations made so far of the candidates of one study, and their cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import LowFidelityEvaluations, Params, PartialResult, key_of

Array = NDArray[np.float64]
Key = frozenset[tuple[str, Any]]


class LowFidelityResults:
    """Runs low-fidelity evaluations and keeps their results.

    Candidates are identified by their keys (`key_of`); callers compute them once and keep them.

    Args:
        low_fidelity: Runs a candidate on a subset of the validation examples.

    Attributes:
        spent: Cost of all evaluations so far, in full evaluations. Building and opening a candidate counts as
            much as the smallest subset: measured seconds would make equal seeds end differently.
    """

    def __init__(self, low_fidelity: LowFidelityEvaluations) -> None:
        self._low_fidelity = low_fidelity
        self._results: dict[Key, list[PartialResult]] = {}
        self._failed: set[Key] = set()
        self.spent = 0.0

    def evaluate(self, candidate: Params, n_examples: int) -> None:
        """Evaluates a candidate on its first `n_examples` examples, more than before.

        A candidate's first evaluation is always on the smallest subset, so that all candidates can be
        compared by it.
        """
        key = key_of(candidate)
        if key not in self._results and n_examples > self._low_fidelity.sizes[0]:
            self._evaluate(key, candidate, self._low_fidelity.sizes[0])
        if key not in self._failed:
            self._evaluate(key, candidate, n_examples)

    def _evaluate(self, key: Key, candidate: Params, n_examples: int) -> None:
        result = self._low_fidelity.short(candidate, n_examples)
        if result is None:
            self._failed.add(key)
            return
        before = self._n_examples(key)
        self.spent += (
            max(result.n_examples - before, 0) + self._low_fidelity.sizes[0]
        ) / self._low_fidelity.n_full
        self._results.setdefault(key, []).append(result)

    def first(self, key: Key) -> PartialResult | None:
        """Returns a candidate's first result, on the same examples for every candidate; None if there is none."""
        results = self._results.get(key)
        return results[0] if results else None

    def longest(self, key: Key) -> PartialResult | None:
        """Returns a candidate's result on the most examples; None if there is none."""
        results = self._results.get(key)
        return results[-1] if results else None

    def examples(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """Returns how many examples each candidate was run on, `(n,)`; -1 where an evaluation failed."""
        return np.array([-1 if k in self._failed else self._n_examples(k) for k in keys], np.int64)

    def _n_examples(self, key: Key) -> int:
        return self._results[key][-1].n_examples if key in self._results else 0

    def exhausted(self, keys: Sequence[Key]) -> NDArray[np.bool_]:
        """Returns for which candidates no larger subset is left, `(n,)`: run on the largest one, or failed."""
        n_examples = self.examples(keys)
        return np.asarray((n_examples < 0) | (n_examples >= self._low_fidelity.sizes[-1]))

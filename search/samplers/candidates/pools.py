"""The candidates among which a surrogate model chooses: all of the space, or a random sample."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers.candidates.context import KnowledgeRow, Params, key_of
from search.samplers.candidates.features import Encoder
from search.samplers.candidates.proposals import grid_values


class Pool:
    """Candidates with their keys and features, computed once.

    Args:
        candidates: At least one.
        knowledge: Rows of other tasks, to be encoded too.
        descriptors: Features of the present task.
        measured: Candidates outside the pool, to be encoded too.
    """

    def __init__(
        self,
        candidates: Sequence[Params],
        knowledge: Sequence[KnowledgeRow] = (),
        descriptors: Mapping[str, float] | None = None,
        measured: Iterable[Params] = (),
    ) -> None:
        self.candidates = candidates
        self.keys = [key_of(params) for params in candidates]
        self._descriptors = descriptors or {}
        known = [row.descriptors for row in knowledge]
        # without other tasks the descriptors are the same everywhere: nothing to learn from
        self._encoder = Encoder(
            [*(row.params for row in knowledge), *candidates, *measured],
            [*known, self._descriptors] if knowledge else (),
        )
        self.features = self.encode(candidates)
        self.known_features = self._encoder.encode([row.params for row in knowledge], known)

    def encode(self, candidates: Sequence[Params]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Returns `(n, n_features)` for candidates of the present task."""
        return self._encoder.encode(candidates, [self._descriptors] * len(candidates))


def draw_candidates(
    space: Mapping[str, BaseDistribution], count: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Returns every candidate of a space without conditions if there are at most `count`, else `count` random ones."""
    values = [grid_values(kind) for kind in space.values()]
    if all(values) and math.prod(len(v or ()) for v in values) <= count:
        columns: Iterable[tuple[float, ...]] = product(*(v or () for v in values))
    else:
        columns = zip(*(_draw(kind, count, rng) for kind in space.values()), strict=True)
    kinds = list(space.items())
    return [
        {name: kind.to_external_repr(number) for (name, kind), number in zip(kinds, row, strict=True)}
        for row in columns
    ]


def _draw(kind: BaseDistribution, count: int, rng: np.random.Generator) -> list[float]:
    """Returns `count` of Optuna's internal numbers, uniform on the knob's own scale."""
    if isinstance(kind, CategoricalDistribution):
        return [float(i) for i in rng.integers(len(kind.choices), size=count)]
    assert isinstance(kind, IntDistribution | FloatDistribution)  # Optuna has no other
    if kind.log:
        half = (
            0.5 if isinstance(kind, IntDistribution) else 0.0
        )  # so that after rounding the ends are as frequent as other values
        numbers = np.exp(rng.uniform(math.log(kind.low - half), math.log(kind.high + half), size=count))
        numbers = np.rint(numbers) if half else numbers
    elif kind.step is None:
        numbers = rng.uniform(kind.low, kind.high, size=count)
    else:
        # 1e-9: (0.3 - 0.1) / 0.1 is 1.9999999999999998
        last = int((kind.high - kind.low) / kind.step + 1e-9)
        numbers = np.round(kind.low + rng.integers(last + 1, size=count) * kind.step, 12)
    return [float(n) for n in np.clip(numbers, kind.low, kind.high)]


def contains(kind: BaseDistribution, value: Any) -> bool:
    """Returns whether the distribution contains the value."""
    if isinstance(kind, CategoricalDistribution):
        return any(type(value) is type(choice) and value == choice for choice in kind.choices)
    assert isinstance(kind, IntDistribution | FloatDistribution)  # Optuna has no other
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind.step is not None and abs((value - kind.low) / kind.step % 1 - 0.5) < 0.5 - 1e-6:
        return False
    return kind.low <= value <= kind.high

"""Encodes candidates and task descriptors as features for boosted trees."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import Params

_FEW = 10  # a number with at most this many values is one-hot: each value gets its own effect


class Encoder:
    """Turns a candidate and its task's descriptors into one row of features.

    Categories, and numbers with few values, are one-hot encoded; other numbers are one column. An inactive
    knob is all zero, or NaN, which boosted trees treat as missing.

    Columns are in the order of first appearance. The order has an effect: among equally good splits XGBoost
    takes the first column's.

    Args:
        candidates: Must contain every value of a knob that will be encoded.
        descriptors: Must contain every descriptor that will be encoded.
    """

    def __init__(self, candidates: Iterable[Params], descriptors: Iterable[Mapping[str, float]] = ()) -> None:
        values: dict[str, dict[tuple[type, Any], None]] = {}  # dicts, to keep the order
        for params in candidates:
            for name, value in params.items():
                values.setdefault(name, {})[type(value), value] = None
        self._column: dict[tuple[str, type | None, Any], int] = {}
        for name, values_of_knob in values.items():
            keys = [(None, None)] if _is_numeric(values_of_knob) else list(values_of_knob)
            for kind, value in keys:
                self._column[name, kind, value] = len(self._column)
        self._numeric = {name for name, kind, _ in self._column if kind is None}
        self._numeric_columns = [self._column[name, None, None] for name in self._numeric]
        self._descriptors = list(dict.fromkeys(name for row in descriptors for name in row))

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self._column) + len(self._descriptors)

    def encode(
        self, candidates: Sequence[Params], descriptors: Sequence[Mapping[str, float]]
    ) -> NDArray[np.float32]:
        """Returns `(n, n_features)` for n candidates and the n descriptors of their tasks."""
        features = np.zeros((len(candidates), self.n_features), dtype=np.float32)
        features[:, self._numeric_columns] = np.nan
        for row, params in zip(features, candidates, strict=True):
            for name, value in params.items():
                self._write(row, name, value)
        for at, name in enumerate(self._descriptors, start=len(self._column)):
            features[:, at] = [known.get(name, math.nan) for known in descriptors]
        return features

    def _write(self, row: NDArray[np.float32], name: str, value: Any) -> None:
        if name not in self._numeric:
            column = self._column.get((name, type(value), value))
            if column is not None:  # a value that no candidate of the pool has: no column, no effect
                row[column] = 1.0
        elif isinstance(value, int | float):
            row[self._column[name, None, None]] = value


def _is_numeric(values_of_knob: Iterable[tuple[type, Any]]) -> bool:
    kinds = [kind for kind, _ in values_of_knob]
    return len(kinds) > _FEW and all(kind in (int, float) for kind in kinds)

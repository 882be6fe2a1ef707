"""How many of several like knobs have each value: what the order of layers or blocks does not change."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_NUMBER = re.compile(r"\[[^\]]*\]|\d+")  # tells like knobs apart: block3_kernel, quantize.bits[layer1.conv]
_INACTIVE = math.inf  # stands for NaN among the levels


@dataclass(frozen=True)
class Group:
    """Knobs of one kind.

    Attributes:
        columns: Their columns in the points, at least two.
        levels: The codes that are counted; empty where values are only averaged.
        averaged: Whether the mean of the codes, which are in [0, 1], counts, too.
    """

    columns: tuple[int, ...]
    levels: tuple[float, ...]
    averaged: bool


def like_knobs(values: Mapping[str, Sequence[tuple[type, Any]]]) -> list[tuple[int, ...]]:
    """Returns the positions of knobs with equal values whose names differ in numbers, or in the layer in brackets, only."""
    kinds: dict[tuple[str, frozenset[tuple[type, Any]]], list[int]] = {}
    for at, (name, values_of_knob) in enumerate(values.items()):
        kinds.setdefault((_NUMBER.sub("#", name), frozenset(values_of_knob)), []).append(at)
    return [tuple(columns) for columns in kinds.values() if len(columns) > 1]


class Counts:
    """Distances between candidates by the counts of values in groups of like knobs.

    Args:
        groups: The groups; there may be none.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._n_axes = sum(bool(group.levels) + group.averaged for group in groups)

    def __bool__(self) -> bool:
        return self._n_axes > 0

    def distance(self, a: Array, b: Array) -> Array:
        """Returns the distances `(n, m)` in [0, 1] of points `(n, n_knobs)` and `(m, n_knobs)`.

        It is the mean, over groups, of half the summed differences of the shares of knobs that have each value, so
        that `1 - distance` is the intersection of histograms, a positive definite kernel (Barla et al. 2003); and of
        the difference of the knobs' means.
        """
        from scipy.spatial.distance import cdist

        if not self:
            return np.zeros((len(a), len(b)))
        return np.asarray(cdist(self._features(a), self._features(b), "cityblock"))

    def _features(self, points: Array) -> Array:
        """Returns `(n, n_features)`, scaled so that distances are sums of differences."""
        features = [np.zeros((len(points), 0))]
        for group in self._groups:
            codes = np.nan_to_num(points[:, group.columns], nan=_INACTIVE, posinf=_INACTIVE)
            shares = [
                (codes == level).mean(axis=1) / 2 for level in (*group.levels, _INACTIVE) if group.levels
            ]
            means = [
                np.clip(np.where(codes == _INACTIVE, 0.0, codes), 0.0, 1.0).mean(axis=1)
            ] * group.averaged
            features += [column[:, None] for column in (*shares, *means)]
        return np.concatenate(features, axis=1) / max(self._n_axes, 1)

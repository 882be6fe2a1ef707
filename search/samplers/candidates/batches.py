"""Choice of several diverse candidates at once, for the first low-fidelity evaluations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.samplers.candidates.context import Params


def diverse(
    scores: NDArray[np.float64], candidates: Sequence[Params], k: int, weight: float = 0.5, top: int = 8
) -> list[int]:
    """Returns the positions of `k` candidates with high scores that differ in their values.

    Greedy, among the `top * k` best scores: each time the candidate with the highest sum of its score and the share of its values
    that none of the picked ones has (the submodular objective of AutoTVM; Chen et al. 2018, "Learning to
    optimize tensor programs", eq. 4). The first is the one with the best score.

    Args:
        scores: `(n,)`, higher is better; a candidate of minus infinity is never picked.
        candidates: The `n` candidates.
        k: The most candidates to pick.
        weight: Weight of the share of new values, in units of the range of the eligible scores.
        top: Candidates are picked among the `top * k` best scores.
    """
    eligible = np.flatnonzero(scores > -np.inf)
    order = eligible[np.argsort(-scores[eligible], kind="stable")][: top * k]
    if not len(order):
        return []
    spread = float(np.ptp(scores[order])) or 1.0
    scaled = (scores[order] - scores[order].min()) / spread
    values = [{(name, type(value), value) for name, value in candidates[i].items()} for i in order]
    covered: set[tuple[str, type, object]] = set()
    picked: list[int] = []
    left = list(range(len(order)))
    while left and len(picked) < k:
        best = max(left, key=lambda i: scaled[i] + weight * _share_new(values[i], covered) * bool(picked))
        left.remove(best)
        picked.append(int(order[best]))
        covered |= values[best]
    return picked


def _share_new(values: set[tuple[str, type, object]], covered: set[tuple[str, type, object]]) -> float:
    """Returns the share of a candidate's values that are not covered yet."""
    return len(values - covered) / max(1, len(values))

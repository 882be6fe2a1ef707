"""Knob importance: how much worse a random forest predicts a measurement once a knob is shuffled.

Permutation importance after Breiman, Random Forests, Machine Learning 45 (2001), section 10, on held-out folds. A
knob is shuffled only among the trials where it is active, so that conditional knobs are assessed where they exist.
All values of a per-layer knob are shuffled together and count as one knob. If the forest cannot predict the held-out
folds, there is no ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.record.results import TrialRecord
from search.report.findings.noise import is_above_noise
from spaces.candidate import Value, value_text

LEAST_TRIALS = 12
LEAST_R2 = 0.1
_REPEATS = 10
TREES = 60

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """The importance of each knob for one column.

    Attributes:
        n_trials: Number of trials that have the column.
        r2: Cross-validated share of the variance that the forest predicts; None if there were too few trials.
        shares: Knob to its share of the whole importance (they add up to 1), greatest first; empty if `reason`.
        spreads: Knob to the standard error of its share over the folds.
        reason: Why there is no ranking; empty if there is one.
    """

    n_trials: int
    r2: float | None
    shares: dict[str, float]
    spreads: dict[str, float]
    reason: str = ""


def base_path(path: str) -> str:
    """Returns the knob that one value of a per-layer knob belongs to."""
    return path.partition("[")[0]


def importance(trials: Sequence[TrialRecord], column: str) -> Importance:
    """Ranks the knobs by how much one column depends on them.

    Args:
        trials: Any trials; those without the column are left out.
        column: A column of trials.csv.
    """
    measured = [t for t in trials if column in t.values() and np.isfinite(t.values()[column])]
    targets = np.array([t.values()[column] for t in measured], dtype=np.float64)
    blocks = features(measured)
    if len(measured) < LEAST_TRIALS:
        return Importance(
            len(measured), None, {}, {}, f"{len(measured)} trials are too few (at least {LEAST_TRIALS})"
        )
    if not blocks or np.ptp(targets) == 0:
        reason = "no knob varies" if not blocks else "its value is the same in every trial"
        return Importance(len(measured), None, {}, {}, reason)
    if not is_above_noise(measured, column):
        return Importance(len(measured), None, {}, {}, "its values differ by no more than their noise")
    r2, increases = _cross_validate(blocks, targets)
    if r2 < LEAST_R2:
        reason = f"the knobs do not predict its values (cross-validated R² {r2:.2f}, {len(measured)} trials)"
        return Importance(len(measured), r2, {}, {}, reason)
    means = {name: max(0.0, float(rows.mean())) for name, rows in increases.items()}
    total = sum(means.values()) or 1.0
    ranked = sorted(means, key=lambda name: -means[name])
    shares = {name: means[name] / total for name in ranked}
    return Importance(len(measured), r2, shares, {name: _error(increases[name]) / total for name in ranked})


def _error(increases: Array) -> float:
    """Returns the standard error of the mean over folds, from `(folds, repeats)`."""
    per_fold = increases.mean(axis=1)
    return float(per_fold.std(ddof=1) / np.sqrt(len(per_fold)))


def features(trials: Sequence[TrialRecord]) -> dict[str, Array]:
    """Returns, per knob that varies, its columns `(n_trials, k)`; NaN where the knob is inactive."""
    paths = dict.fromkeys(path for t in trials for path in t.candidate)
    blocks: dict[str, list[Array]] = {}
    for path in paths:
        values = [t.candidate.get(path) for t in trials]
        active = np.array([path in t.candidate for t in trials])
        if len(set(values)) > 1:
            blocks.setdefault(base_path(path), []).append(_encode(values, active))
    return {name: np.concatenate(columns, axis=1) for name, columns in blocks.items()}


def _encode(values: Sequence[Value], active: NDArray[np.bool_]) -> Array:
    """Returns `(n, k)`: numbers as one column, other values one-hot; NaN rows where the knob is inactive."""
    active_values = [v for v, a in zip(values, active, strict=True) if a]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in active_values):
        return np.array([[float(str(v)) if a else np.nan] for v, a in zip(values, active, strict=True)])
    texts = sorted({value_text(v) for v in active_values})
    table = np.array([[float(value_text(v) == text) for text in texts] for v in values])
    table[~active] = np.nan
    return table


def _cross_validate(blocks: dict[str, Array], targets: Array) -> tuple[float, dict[str, Array]]:
    """Returns R² over the folds and, per shuffled knob, the rise `(folds, repeats)` of the squared error."""
    rng = np.random.default_rng(0)
    n_trials = len(targets)
    folds = np.array_split(rng.permutation(n_trials), min(5, n_trials // 2))
    error, rises = 0.0, {name: np.zeros((len(folds), _REPEATS)) for name in blocks}
    for index, held_out in enumerate(folds):
        training = np.setdiff1d(np.arange(n_trials), held_out)
        fold_error, fold_rises = _one_fold(blocks, targets, training, held_out, rng)
        error += fold_error * len(held_out)
        for name, rows in fold_rises.items():
            rises[name][index] = rows
    return 1 - error / n_trials / float(targets.var()), rises


def _one_fold(
    blocks: dict[str, Array],
    targets: Array,
    training: NDArray[np.intp],
    held_out: NDArray[np.intp],
    rng: np.random.Generator,
) -> tuple[float, dict[str, Array]]:
    from sklearn.ensemble import RandomForestRegressor

    # Inactive knobs get a value below all active ones, so that a split can separate them.
    filled = {name: np.where(np.isnan(b), np.nanmin(b) - 1, b) for name, b in blocks.items()}
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=0, n_jobs=1)
    forest.fit(_stack(filled)[training], targets[training])
    held = {name: np.tile(b[held_out], (_REPEATS, 1)) for name, b in filled.items()}
    truth = np.tile(targets[held_out], _REPEATS)
    plain = np.square(forest.predict(_stack(filled)[held_out]) - targets[held_out]).mean()
    rises = {}
    for name, block in blocks.items():
        shuffled = {**held, name: _shuffled(block, filled[name], np.tile(held_out, _REPEATS), rng)}
        errors = np.square(forest.predict(_stack(shuffled)) - truth).reshape(_REPEATS, -1).mean(axis=1)
        rises[name] = errors - plain
    return float(plain), rises


def _stack(blocks: dict[str, Array]) -> Array:
    return np.concatenate(list(blocks.values()), axis=1)


def _shuffled(block: Array, filled: Array, rows: NDArray[np.intp], rng: np.random.Generator) -> Array:
    """Returns, for every row, the values of a random trial in which the same columns of the knob are active."""
    patterns, pattern_of = np.unique(np.isnan(block), axis=0, return_inverse=True)
    donors = np.empty(len(rows), dtype=np.intp)
    for pattern in range(len(patterns)):
        chosen = pattern_of[rows] == pattern
        donors[chosen] = rng.choice(np.flatnonzero(pattern_of == pattern), size=int(chosen.sum()))
    return filled[donors]

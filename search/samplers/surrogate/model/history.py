"""The study's trials as training data."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from search.samplers.candidates.context import Params, key_of

Array = NDArray[np.float64]
Key = frozenset[tuple[str, Any]]


@dataclass(frozen=True)
class History:
    """Results of trials.

    Attributes:
        candidates: `n` candidates, of completed trials, and of pruned or failed ones with a partial result.
        values: `(n, n_objectives)`, higher is better; NaN where nothing was measured.
        errors: `(n, n_objectives)`, standard errors; 0 for a full evaluation.
        excesses: Constraint to `(n,)`, NaN where a trial does not have it.
        pending: Candidates of running trials.
    """

    candidates: Sequence[Params]
    values: Array
    errors: Array
    excesses: Mapping[str, Array]
    pending: Sequence[Params]

    @property
    def full(self) -> NDArray[np.bool_]:
        """`(n,)`, where all objectives were measured in full."""
        return np.asarray(np.isfinite(self.values).all(axis=1) & (self.errors == 0).all(axis=1))

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """`(n,)`, where no constraint is known to be broken."""
        return np.asarray(
            ~np.any([e > 0 for e in self.excesses.values()], axis=0) | np.zeros(len(self.values), bool)
        )


@dataclass(frozen=True)
class _Row:
    """One trial's candidate and results; `values` is None if it has none."""

    key: Key
    params: Params
    values: Any
    errors: Any
    excesses: Mapping[str, float]

    @classmethod
    def of(cls, trial: FrozenTrial, n_objectives: int) -> "_Row":
        params = trial.params
        values, errors = _measured(trial, n_objectives)
        counts = values is not None and np.isfinite(values).any()
        excesses = {name: _finite(value) for name, value in trial.constraints.items()} if counts else {}
        return cls(key_of(params), params, values if counts else None, errors, excesses)


class Reader:
    """Reads trials; caches the finished ones, which do not change any more."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, datetime | None], _Row] = {}

    def _row(self, trial: FrozenTrial, n_objectives: int) -> _Row:
        name = trial.number, trial.datetime_start  # another study has the same numbers
        found = self._rows.get(name)
        if found is None:
            found = _Row.of(trial, n_objectives)
            if trial.state.is_finished():
                self._rows[name] = found
        return found

    def keys(self, trials: Sequence[FrozenTrial], n_objectives: int) -> dict[Key, Params]:
        """Returns the trials' candidates by key."""
        rows = [self._row(t, n_objectives) for t in trials]
        return {row.key: row.params for row in rows}

    def history(self, trials: Sequence[FrozenTrial], signs: Array) -> History:
        """Returns the trials' results.

        Args:
            trials: All but the one to be proposed.
            signs: `(n_objectives,)`, -1 where an objective is to be minimised.
        """
        rows = [row for t in trials if (row := self._row(t, len(signs))).values is not None]
        shape = (len(rows), len(signs))
        names = sorted({name for row in rows for name in row.excesses})
        return History(
            [row.params for row in rows],
            np.array([row.values for row in rows]).reshape(shape) * signs,
            np.array([row.errors for row in rows]).reshape(shape),
            {name: np.array([row.excesses.get(name, math.nan) for row in rows]) for name in names},
            [t.params for t in trials if t.state == TrialState.RUNNING and t.params],
        )


def history_of(trials: Sequence[FrozenTrial], signs: Array) -> History:
    """Reads trials without a cache; see `Reader.history`."""
    return Reader().history(trials, signs)


def _measured(trial: FrozenTrial, n_objectives: int) -> tuple[Any, Any]:
    """Returns the trial's values and standard errors per objective; None, None if it has no results."""
    if trial.state == TrialState.COMPLETE and len(trial.values) == n_objectives:
        values = [_finite(v) for v in trial.values]
        return values, [0.0] * n_objectives
    if trial.state in (TrialState.PRUNED, TrialState.FAIL) and "partial" in trial.user_attrs:
        return _partial(trial.user_attrs["partial"], n_objectives)
    return None, None


def _partial(text: Any, n_objectives: int) -> tuple[Any, Any]:
    """Returns values and standard errors of an evaluation that was stopped early; None if not parsable.

    Args:
        text: The trial's user attribute "partial": JSON with `values` and `errors`.
        n_objectives: Number of values that it must have.
    """
    try:
        note = json.loads(text) if isinstance(text, str) else text
        values = [_finite(v) for v in note["values"]]
        errors = [_finite(e) for e in note["errors"]]
    except (ValueError, TypeError, KeyError):
        return None, None
    if len(values) != n_objectives or len(errors) != n_objectives:
        return None, None
    return [v if math.isfinite(e) else math.nan for v, e in zip(values, errors, strict=True)], [
        e if math.isfinite(e) else 0.0 for e in errors
    ]


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan

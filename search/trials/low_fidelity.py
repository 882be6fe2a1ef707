"""Low-fidelity evaluations of candidates: modelled costs, statistics, and runs on part of the split."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.column import Column
from evaluators.metric import sign_of
from search.record.results import Constraint, Objective
from search.samplers.candidates.context import Known, Params, PartialResult, key_of
from search.trials.compression_work import Call
from search.trials.partial_estimates import subset_sizes
from search.trials.structures import Key, Structures
from search.trials.trial import CompressionRunner
from spaces.errors import ParedownError


class CompressionLowFidelity:
    """Low-fidelity evaluations of a compression study's candidates, where its trials run.

    Implements `context.LowFidelityEvaluations`. All results are cached: modelled costs by structure,
    statistics by candidate, runs by canonical candidate; a run on more examples continues the run on fewer.

    Args:
        runner: Computes keys; knows the validation split and the metric.
        objectives: Axes of the front.
        constraints: Limits that a feasible trial keeps.
        call: Calls a method of `CompressionWork` where trials run.

    Attributes:
        sizes: Numbers of examples that a run can have, ascending: see `subset_sizes`.
        n_full: Examples in the validation split.
        seconds: Seconds spent so far on `known`, `statistics` and `low_fidelity` (the runs).
    """

    def __init__(
        self,
        runner: CompressionRunner,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        call: Call,
    ) -> None:
        self._runner, self._call = runner, call
        self._objectives, self._constraints = tuple(objectives), tuple(constraints)
        self.n_full = len(runner.context.split)
        self.sizes: Sequence[int] = subset_sizes(self.n_full)
        self.seconds: dict[str, float] = {"known": 0.0, "statistics": 0.0, "low_fidelity": 0.0}
        self._structures = Structures(runner, call)
        self._estimates: dict[Key, dict[str, float]] = {}
        self._low_fidelity: dict[tuple[str, int], Mapping[str, Any] | None] = {}

    # -- exact values ----------------------------------------------------------------------------------------

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns the exact values: those that follow from a candidate's structure, of a large network of some structures only.

        A candidate that lacks a cost which others have (its device cannot run it) counts as one that cannot be built.
        """
        with self._clock("known"):
            found = self._structures.columns_ahead(candidates)
            columns = {column for row in found for column in row or ()}
            wanted = [o.column for o in self._objectives if o.column in columns]
            valid = [row is None or (bool(row) and all(c in row for c in wanted)) for row in found]
            rows = [row or {} for row in found]
            keys = [self._structures.key(p) if ok else "" for p, ok in zip(candidates, valid, strict=True)]
            values = np.array([[row.get(o.column, np.nan) for o in self._objectives] for row in rows])
            excesses = {
                c.name: np.array([c.excess(row.get(c.column, np.nan)) for row in rows], np.float64)
                for c in self._constraints
            }
        return Known(
            values.reshape(len(rows), len(self._objectives)).astype(np.float64, copy=False), excesses, keys
        )

    # -- statistics ------------------------------------------------------------------------------------------

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, NDArray[np.float64]]:
        """Returns the first stage's estimates by name (propagated signal-to-noise ratios, dB), `(n,)` each.

        NaN stands for a candidate that cannot be built.
        """
        with self._clock("statistics"):
            new = {key_of(p): p for p in candidates if key_of(p) not in self._estimates}
            self._estimates |= self._estimated({k: p for k, p in new.items() if self._structures.key(p)})
            rows = [self._estimates.get(key_of(params), {}) for params in candidates]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}

    def _estimated(self, candidates: Mapping[Key, Params]) -> dict[Key, dict[str, float]]:
        """Returns the first stage's estimates, since its input is known; empty if they cannot be computed."""
        if not candidates or not self._runner.pipeline.stages:
            return {}
        try:
            built = [self._structures.candidate(params) for params in candidates.values()]
            estimates = self._call("statistics", built)
        except ParedownError:
            estimates = {}
        return {
            key: {name: figures[i] for name, figures in estimates.items()} for i, key in enumerate(candidates)
        }

    # -- runs on part of the split ---------------------------------------------------------------------------

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Runs a candidate on the first examples of the validation split.

        Args:
            candidate: The candidate.
            n_examples: Rounded up to one of `sizes`.

        Returns:
            Estimates of objectives and constraints; None if the candidate cannot be built or run.
        """
        key = self._structures.key(candidate)
        if not key:
            return None
        n = next((size for size in self.sizes if size >= n_examples), self.sizes[-1])
        if (key, n) not in self._low_fidelity:
            with self._clock("low_fidelity"):
                self._low_fidelity[key, n] = self._estimate(candidate, n)
        estimate = self._low_fidelity[key, n]
        return None if estimate is None else self._result(estimate, self._structures.columns(candidate))

    def _estimate(self, params: Params, n_examples: int) -> Mapping[str, Any] | None:
        try:
            estimate: Mapping[str, Any] = self._call(
                "estimate", self._structures.candidate(params), n_examples
            )
        except ParedownError:
            return None
        return estimate

    def _result(self, paired: Mapping[str, Any], known: Mapping[str, float]) -> PartialResult:
        """Returns a paired estimate of the metric's drop as estimates of all objectives and constraints."""
        metric = self._runner.context.metric
        drop, error = paired["drop"], paired["drop_error"]
        value = paired["reference"] - sign_of(metric) * drop
        estimates = {column: (value, 0.0) for column, value in known.items()} | {
            str(Column.of(metric.name)): (value, error),
            str(Column.of(f"{metric.name}_drop")): (drop, error),
        }
        unknown = (np.nan, np.nan)
        values = np.array([estimates.get(o.column, unknown) for o in self._objectives], np.float64)
        excesses = {
            c.name: (c.excess(estimates[c.column][0]), estimates[c.column][1])
            for c in self._constraints
            if c.column in estimates
        }
        return PartialResult(paired["n_examples"], values[:, 0], values[:, 1], excesses, paired["features"])

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

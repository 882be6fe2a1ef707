"""Low-fidelity evaluations of candidates: modelled costs, statistics, and runs on part of the split."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from evaluators.column import Column
from evaluators.metric import sign_of
from evaluators.runtime import labels_of
from evaluators.task.paired_estimate import PairedEstimate, PairedReference
from evaluators.widened import widened
from search.record.results import Constraint, Objective
from search.samplers.candidates.context import Known, Params, PartialResult, key_of
from search.trials.partial_runs import PartialRuns
from search.trials.structures import Key, Structures
from search.trials.trial import CompressionRunner
from spaces.errors import ParedownError

# The smallest subset is this share of the split, clipped to these numbers of examples: with fewer the noise
# in the outputs is not measured precisely enough, and with more the run takes longer than building the model.
SMALLEST_SHARE = 1 / 32
SMALLEST_SUBSET = (8, 64)


class CompressionLowFidelity:
    """Low-fidelity evaluations of a compression study's candidates, in the study's own process.

    Implements `context.LowFidelityEvaluations`. All results are cached: modelled costs by structure,
    statistics by candidate, runs by canonical candidate; a run on more examples continues the run on fewer.

    Args:
        runner: Builds and evaluates candidates.
        objectives: Axes of the front.
        constraints: Limits that a feasible trial keeps.

    Attributes:
        sizes: Numbers of examples that a run can have, ascending: see `subset_sizes`.
        n_full: Examples in the validation split.
        seconds: Seconds spent so far on `known`, `statistics` and `low_fidelity` (the runs).
    """

    def __init__(
        self, runner: CompressionRunner, objectives: Sequence[Objective], constraints: Sequence[Constraint]
    ) -> None:
        self._runner = runner
        self._objectives, self._constraints = tuple(objectives), tuple(constraints)
        self.n_full = len(runner.context.split)
        self.sizes: Sequence[int] = subset_sizes(self.n_full)
        self.seconds: dict[str, float] = {"known": 0.0, "statistics": 0.0, "low_fidelity": 0.0}
        self._structures = Structures(runner)
        self._estimates: dict[Key, dict[str, float]] = {}
        self._reference: PairedReference | None = None
        self._runs: PartialRuns | None = None
        self._low_fidelity: dict[tuple[str, int], PairedEstimate | None] = {}

    # -- exact values ----------------------------------------------------------------------------------------

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns the exact values: those that follow from a candidate's structure.

        A candidate that lacks a cost which others have (its device cannot run it) counts as one that cannot be built.
        """
        with self._clock("known"):
            rows = [self._structures.columns(params) for params in candidates]
            columns = {column for row in rows for column in row}
            wanted = [o.column for o in self._objectives if o.column in columns]
            valid = [bool(row) and all(column in row for column in wanted) for row in rows]
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
        runner = self._runner
        if not candidates or not runner.pipeline.stages:
            return {}
        stage, start, context = runner.pipeline.stages[0], runner.start, runner.stage_context
        values = [
            runner.pipeline.canonical(start, runner.space, self._structures.candidate(params), context)
            for params in candidates.values()
        ]
        try:
            estimates = stage.estimates(start, [v[stage.name] for v in values], context)
        except ParedownError:
            estimates = {}
        return {
            key: {name: float(figures[i]) for name, figures in estimates.items()}
            for i, key in enumerate(candidates)
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
                self._low_fidelity[key, n] = self._estimate(key, candidate, n)
        estimate = self._low_fidelity[key, n]
        return None if estimate is None else self._result(estimate, self._structures.columns(candidate))

    def _estimate(self, key: str, params: Params, n_examples: int) -> PairedEstimate | None:
        context = self._runner.context
        if self._reference is None or self._runs is None:
            labels = labels_of(context.split)
            self._reference = PairedReference(
                context.metric,
                context.reference.outputs,
                labels,
                agreement=context.agreement,
                whole=context.reference.artifact.input.output.whole,
            )
            self._runs = PartialRuns(context.split, self.sizes, exact_sums=context.exact_sums)
        try:
            with self._runner.lock.shared():
                outputs = self._runs.outputs(key, n_examples, lambda: widened(self._structures.built(params)))
            return self._reference.estimate(outputs)
        except ParedownError:
            return None

    def _result(self, paired: PairedEstimate, known: Mapping[str, float]) -> PartialResult:
        """Returns a paired estimate of the metric's drop as estimates of all objectives and constraints."""
        metric = self._runner.context.metric
        assert self._reference is not None
        value = self._reference.value - sign_of(metric) * paired.drop
        estimates = {column: (value, 0.0) for column, value in known.items()} | {
            str(Column.of(metric.name)): (value, paired.drop_error),
            str(Column.of(f"{metric.name}_drop")): (paired.drop, paired.drop_error),
        }
        unknown = (np.nan, np.nan)
        values = np.array([estimates.get(o.column, unknown) for o in self._objectives], np.float64)
        excesses = {
            c.name: (c.excess(estimates[c.column][0]), estimates[c.column][1])
            for c in self._constraints
            if c.column in estimates
        }
        return PartialResult(paired.n_examples, values[:, 0], values[:, 1], excesses, paired.features)

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began


def subset_sizes(n_full: int) -> tuple[int, ...]:
    """Returns the numbers of examples of low-fidelity runs, ascending.

    They begin with 1/32 of the split (at least 8, at most 64), grow by a factor of 4, and end with half of
    the split.
    """
    half = max(n_full // 2, 1)
    sizes = []
    size = int(np.clip(n_full * SMALLEST_SHARE, *SMALLEST_SUBSET))
    while size < half:
        sizes.append(size)
        size *= 4
    return (*sizes, half)

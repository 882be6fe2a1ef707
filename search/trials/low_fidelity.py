"""What can be told of a compression candidate before its trial: modelled costs, statistics, and short runs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from evaluators.column import Column
from evaluators.runtime import Batches
from evaluators.task.paired_estimate import PairedEstimate, PairedReference
from evaluators.widened import widened
from search.record.results import Constraint, Objective
from search.samplers.candidates.context import Known, Params, PartialResult, key_of
from search.trials.partial_runs import ShortRuns
from search.trials.structures import Key, Structures
from search.trials.trial import CompressionRunner
from spaces.errors import ParedownError

# The smallest look is so much of the split, between these numbers of examples: fewer tell too little of the noise in the
# outputs, and more take longer than the model takes to build.
SMALLEST_SHARE = 1 / 32
SMALLEST_SUBSET = (8, 64)


class CompressionLowFidelity:
    """Looks at candidates of a compression study, in the study's own process; implements `context.Looks`.

    Whatever is found is kept, by what it depends on: modelled costs by structure, statistics by tensor and grid, runs by
    canonical candidate, of which a longer one goes on where a shorter one ended.

    Args:
        runner: Builds and judges candidates.
        objectives: Axes of the front.
        constraints: What must hold.

    Attributes:
        sizes: How many examples a short look can have: see `subset_sizes`.
        n_full: Examples in the validation split.
        seconds: What looks took so far: `known`, `statistics` and `low_fidelity`.
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
        self._runs: ShortRuns | None = None
        self._low_fidelity: dict[tuple[str, int], PairedEstimate | None] = {}

    # -- what is certain ---------------------------------------------------------------------------------------

    def known(self, candidates: Sequence[Params]) -> Known:
        """Returns what is certain: what follows from a candidate's structure.

        A candidate that lacks a cost which others have (its device cannot run it) counts as one that cannot be built.
        """
        with self._clock("known"):
            rows = [self._structures.columns(params) for params in candidates]
            columns = {column for row in rows for column in row}
            wanted = [o.column for o in self._objectives if o.column in columns]
            good = [bool(row) and all(column in row for column in wanted) for row in rows]
            keys = [self._structures.key(p) if ok else "" for p, ok in zip(candidates, good, strict=True)]
            values = np.array([[row.get(o.column, np.nan) for o in self._objectives] for row in rows])
            excesses = {
                c.name: np.array([c.excess(row.get(c.column, np.nan)) for row in rows], np.float64)
                for c in self._constraints
            }
        return Known(
            values.reshape(len(rows), len(self._objectives)).astype(np.float64, copy=False), excesses, keys
        )

    # -- what needs no run -------------------------------------------------------------------------------------

    def statistics(self, candidates: Sequence[Params]) -> Mapping[str, NDArray[np.float64]]:
        """Returns what the first stage reckons (propagated signal-to-noise ratios, in decibels), `(n,)` each.

        NaN stands for a candidate that cannot be built.
        """
        with self._clock("statistics"):
            fresh = {key_of(p): p for p in candidates if key_of(p) not in self._estimates}
            self._estimates |= self._estimated({k: p for k, p in fresh.items() if self._structures.key(p)})
            rows = [self._estimates.get(key_of(params), {}) for params in candidates]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}

    def _estimated(self, candidates: Mapping[Key, Params]) -> dict[Key, dict[str, float]]:
        """Asks the first stage, whose input is known; what cannot be reckoned is left out."""
        runner = self._runner
        if not candidates or not runner.pipeline.stages:
            return {}
        stage, start, context = runner.pipeline.stages[0], runner.start, runner.stage_context
        values = [
            runner.pipeline.canonical(start, runner.space, self._structures.candidate(params), context)
            for params in candidates.values()
        ]
        try:
            found = stage.estimates(start, [v[stage.name] for v in values], context)
        except ParedownError:
            found = {}
        return {
            key: {name: float(figures[i]) for name, figures in found.items()}
            for i, key in enumerate(candidates)
        }

    # -- what a short run says -----------------------------------------------------------------------------------

    def short(self, candidate: Params, n_examples: int) -> PartialResult | None:
        """Runs a candidate on the first examples of the validation split.

        Args:
            candidate: The candidate.
            n_examples: Rounded up to one of `sizes`.

        Returns:
            What it says; None if the candidate cannot be built or run.
        """
        key = self._structures.key(candidate)
        if not key:
            return None
        n = next((size for size in self.sizes if size >= n_examples), self.sizes[-1])
        if (key, n) not in self._low_fidelity:
            with self._clock("low_fidelity"):
                self._low_fidelity[key, n] = self._look(key, candidate, n)
        look = self._low_fidelity[key, n]
        return None if look is None else self._read(look, self._structures.columns(candidate))

    def _look(self, key: str, params: Params, n_examples: int) -> PairedEstimate | None:
        context = self._runner.context
        if self._reference is None or self._runs is None:
            labels = Batches(0).labels(context.split)
            self._reference = PairedReference(context.metric, context.reference.outputs, labels)
            self._runs = ShortRuns(context.split, self.sizes)
        try:
            with self._runner.lock.shared():
                outputs = self._runs.outputs(key, n_examples, lambda: widened(self._structures.built(params)))
            return self._reference.look(outputs)
        except ParedownError:
            return None

    def _read(self, look: PairedEstimate, known: Mapping[str, float]) -> PartialResult:
        """Puts a look into objectives and constraints."""
        metric = self._runner.context.metric
        assert self._reference is not None
        whole = metric.scale * float(self._reference.scores.mean())
        estimates = {column: (value, 0.0) for column, value in known.items()} | {
            str(Column.of(metric.name)): (whole - look.drop, look.drop_error),
            str(Column.of(f"{metric.name}_drop")): (look.drop, look.drop_error),
        }
        nothing = (np.nan, np.nan)
        found = np.array([estimates.get(o.column, nothing) for o in self._objectives], np.float64)
        excesses = {
            c.name: (c.excess(estimates[c.column][0]), estimates[c.column][1])
            for c in self._constraints
            if c.column in estimates
        }
        return PartialResult(look.n_examples, found[:, 0], found[:, 1], excesses, look.features)

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began


def subset_sizes(n_full: int) -> tuple[int, ...]:
    """Returns the numbers of examples that short looks have.

    A 32nd of all (at least 8, at most 64), then four times as many each time, up to half of all, and that half.
    """
    half = max(n_full // 2, 1)
    sizes = []
    size = int(np.clip(n_full * SMALLEST_SHARE, *SMALLEST_SUBSET))
    while size < half:
        sizes.append(size)
        size *= 4
    return (*sizes, half)

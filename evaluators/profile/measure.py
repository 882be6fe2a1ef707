"""Timing networks: whole runs to the nanosecond, and onnxruntime's own profile of which kernel took what share."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import OpGraph
from evaluators.cost.graph.runtime_graph import Probe
from evaluators.profile.calm import Anchor, times_us
from evaluators.profile.sketch import Place, Sketch
from evaluators.runtime import open_session, run_session
from spaces.artifact import Artifact
from spaces.errors import EvaluationError

_PIECE_US = 1000.0  # runs between two looks at the anchor: calm moments can be as short as this
_PIECES = 6  # a visit, at most
_LOOKS = 16  # a visit, at most
_WARM_UP = 2  # runs, after another network had the caches
_AT_ONCE = 12  # networks that take turns
_PATIENCE = 40  # visits of a network; then it is timed as the machine is
# What slips through the looks at the anchor only ever adds time, so the faster runs count.
_COUNTED_QUANTILE = 0.15
_COUNTED_SHARE = 0.4


@dataclass(frozen=True)
class Effort:
    """How much of each network is timed: so many runs, and so long altogether, plain and profiled."""

    runs: int = 8
    plain_us: float = 3000.0
    profiled_us: float = 3000.0


@dataclass(frozen=True)
class Sample:
    """One network's times.

    Attributes:
        graph: Its kernels, as onnxruntime runs them.
        total_us: Time of a run.
        kernel_us: Each kernel's share by onnxruntime's profiler, which adds its own time, `(n_kernels,)`.
        spread: Interquartile range of single runs over `total_us`.
        calm: Whether it was timed in calm moments.
    """

    graph: OpGraph
    total_us: float
    kernel_us: NDArray[np.float64]
    spread: float
    calm: bool


def open_anchor(threads: int) -> Anchor:
    """Opens the anchor: small kernels of both layouts, which a neighbour on the same core disturbs most."""
    sketch = Sketch(np.random.default_rng(1))
    x = Place("input", (24, 14, 14))
    for _ in range(6):
        x = sketch.conv(sketch.conv(x, x.shape[0], 3, groups=x.shape[0]), 40, 1)
    return Anchor(runner(sketch.artifact((24, 14, 14), x), threads))


def runner(artifact: Artifact, threads: int) -> Callable[[], object]:
    """Opens a session, and returns what runs it once as latency is timed elsewhere."""
    session = open_session(artifact.onnx_bytes, threads)
    inputs = np.zeros((1, *artifact.input.shape), np.float32)
    names = [output.name for output in session.get_outputs()]
    return lambda: run_session(session, inputs, names)


def measured(
    networks: Iterator[Artifact], anchor: Anchor, threads: int, seconds: float, effort: Effort
) -> Iterator[Sample]:
    """Times networks in turns until the time is over or there are no more.

    Networks are prepared while the machine is disturbed, and timed while it is calm.
    """
    end = monotonic() + seconds
    active: list[_Subject] = []
    subjects = _subjects(networks, threads, effort)
    more = True
    with ExitStack() as stack:
        stack.callback(_close_all, active)
        while (more or active) and monotonic() < end:
            if more and (len(active) < _AT_ONCE // 2 or (len(active) < _AT_ONCE and not anchor.is_calm())):
                prepared = next(subjects, None)
                active += [] if prepared is None else [prepared]
                more = prepared is not None
            elif active:
                subject = min(active, key=lambda s: s.visits)
                subject.visit(anchor)
                if subject.is_done:
                    active.remove(subject)
                    yield subject.finish()


def _close_all(subjects: list["_Subject"]) -> None:
    for subject in subjects:
        subject.close()


def _subjects(networks: Iterator[Artifact], threads: int, effort: Effort) -> "Iterator[_Subject]":
    """Opens the networks; the few that this onnxruntime cannot run are left out."""
    good, bad = 0, 0
    for artifact in networks:
        try:
            yield _Subject(artifact, threads, effort)
            good += 1
        except EvaluationError:
            bad += 1
            if bad > 10 + good:
                raise


@dataclass
class _Track:
    """Single runs of one session.

    Attributes:
        run: Runs the session.
        least_runs: Runs that are wanted.
        least_us: Time that is wanted, all counted runs together.
        n_runs: Runs so far.
        counted: Number of the run (the profiler numbers them, too) to its time in us.
        lowered: Whether some runs count that were not between two calm looks at the anchor.
    """

    run: Callable[[], object]
    least_runs: int
    least_us: float
    n_runs: int = 0
    counted: dict[int, float] = field(default_factory=dict)
    lowered: bool = False

    @property
    def lack(self) -> float:
        """Share of the wanted runs and time that is not there yet, at most 1."""
        runs = len(self.counted) / self.least_runs
        return max(0.0, 1 - min(runs, sum(self.counted.values()) / self.least_us))

    def visit(self, anchor: Anchor, patient: bool) -> None:
        """Times some pieces between two calm looks at the anchor; at any looks if there is no more patience."""
        for _ in range(_WARM_UP):
            (once,) = self._timed(1).values()
        n = int(np.clip(_PIECE_US / once, 1, 20))
        calm, pieces = anchor.is_calm(), 0
        for _ in range(_LOOKS):
            if pieces == _PIECES:
                break
            runs = self._timed(n) if calm or not patient else {}
            pieces += bool(runs)
            before, calm = calm, anchor.is_calm()
            if (before and calm) or not patient:
                self.counted |= runs
                self.lowered |= not patient

    def _timed(self, n: int) -> dict[int, float]:
        first = self.n_runs
        self.n_runs += n
        return {first + i: float(t) for i, t in enumerate(times_us(self.run, n, warm_up=0))}


class _Subject:
    """A network that is being timed."""

    def __init__(self, artifact: Artifact, threads: int, effort: Effort) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="paredown-")
        try:
            self._probe = Probe(artifact, Path(self._folder.name), threads)
            self._plain = _Track(runner(artifact, threads), effort.runs, effort.plain_us)
            self._profiled = _Track(self._probe.run, effort.runs, effort.profiled_us)
            self._plain.run()
            self._profiled.run()
            self._profiled.n_runs = 1  # the profile has it
        except EvaluationError:
            self.close()
            raise
        self.visits = 0

    def visit(self, anchor: Anchor) -> None:
        """Times the session that lacks more."""
        track = max((self._plain, self._profiled), key=lambda track: track.lack)
        track.visit(anchor, patient=self.visits < _PATIENCE)
        self.visits += 1

    @property
    def is_done(self) -> bool:
        """Whether both sessions were timed enough."""
        return not self._plain.lack and not self._profiled.lack

    def finish(self) -> Sample:
        """Reads the profile and sums up."""
        profiled = self._probe.finish()
        self.close()
        runs = list(self._plain.counted.values())
        quarter, typical, three = np.quantile(runs, [0.25, _COUNTED_QUANTILE, 0.75])
        return Sample(
            profiled.graph,
            float(typical),
            _typical(profiled.kernel_us[:, list(self._profiled.counted)]),
            float((three - quarter) / typical),
            not (self._plain.lowered or self._profiled.lowered),
        )

    def close(self) -> None:
        """Removes its files."""
        self._folder.cleanup()


def _typical(kernel_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each kernel's faster runs: a quantile would stay a whole microsecond, as the profiler rounds."""
    n_kept = max(1, round(_COUNTED_SHARE * kernel_us.shape[1]))
    return np.asarray(np.sort(kernel_us, axis=1)[:, :n_kept].mean(axis=1))

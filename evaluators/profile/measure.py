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
_PIECES = 6  # a visit
_WARM_UP = 2  # runs, after another network had the caches
_AT_ONCE = 12  # networks that take turns
_MOST_VISITS = 4  # in multiples of those that a machine without disturbances needs
_SMALLER_HALF = 0.35  # quantile of the runs that counts: disturbances only ever add time


@dataclass(frozen=True)
class Effort:
    """How much of each network is timed: so many runs, and so long altogether, plain and profiled."""

    runs: int = 6
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
        stack.callback(lambda: [subject.close() for subject in active])
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
    """Single runs of one session, in order."""

    run: Callable[[], object]
    least_runs: int
    least_us: float
    n_runs: int = 0
    calm: dict[int, float] = field(default_factory=dict)  # number of the run to its time in us
    all: dict[int, float] = field(default_factory=dict)

    @property
    def lack(self) -> float:
        """Share of the wanted runs and time that is not there yet, at most 1."""
        runs = len(self.calm) / self.least_runs
        return max(0.0, 1 - min(runs, sum(self.calm.values()) / self.least_us))

    def visit(self, anchor: Anchor) -> None:
        """Times some pieces; of those between two calm looks at the anchor, the runs count as calm."""
        for _ in range(_WARM_UP):
            times = self._timed(1)
        n = int(np.clip(_PIECE_US / times[0], 1, 20))
        calm = anchor.is_calm()
        for _ in range(_PIECES):
            first = self.n_runs
            runs = dict(enumerate(self._timed(n), first))
            self.all |= runs
            before, calm = calm, anchor.is_calm()
            if before and calm:
                self.calm |= runs

    def _timed(self, n: int) -> list[float]:
        self.n_runs += n
        return [float(t) for t in times_us(self.run, n, warm_up=0)]


class _Subject:
    """A network that is being timed."""

    def __init__(self, artifact: Artifact, threads: int, effort: Effort) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="paredown-")
        try:
            self._probe = Probe(artifact, Path(self._folder.name), threads)
            self._plain = _Track(runner(artifact, threads), effort.runs, effort.plain_us)
            self._profiled = _Track(self._probe.run, effort.runs, effort.profiled_us)
            for track in (self._plain, self._profiled):
                track.run()
            self._profiled.n_runs = 1  # the profile counts it
        except EvaluationError:
            self.close()
            raise
        self.visits = 0

    def visit(self, anchor: Anchor) -> None:
        """Times the session that lacks more."""
        max((self._plain, self._profiled), key=lambda track: track.lack).visit(anchor)
        self.visits += 1

    @property
    def is_done(self) -> bool:
        """Whether there is enough, or no more hope of calm."""
        tracks = (self._plain, self._profiled)
        enough = not any(track.lack for track in tracks)
        return enough or (
            all(len(track.all) >= _MOST_VISITS * track.least_runs for track in tracks)
            and all(sum(track.all.values()) >= _MOST_VISITS * track.least_us for track in tracks)
            and self.visits >= 2 * _MOST_VISITS
        )

    def finish(self) -> Sample:
        """Reads the profile and sums up."""
        profiled = self._probe.finish()
        self.close()
        calm = min(len(self._plain.calm), len(self._profiled.calm)) >= 2
        plain, probed = ((t.calm if calm else t.all) for t in (self._plain, self._profiled))
        quarter, typical, three = np.quantile(list(plain.values()), [0.25, _SMALLER_HALF, 0.75])
        return Sample(
            profiled.graph,
            float(typical),
            _typical(profiled.kernel_us[:, list(probed)]),
            float((three - quarter) / typical),
            calm,
        )

    def close(self) -> None:
        """Removes its files."""
        self._folder.cleanup()


def _typical(kernel_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each kernel's faster runs: a median would stay a whole microsecond, as the profiler rounds."""
    n_kept = -(-2 * kernel_us.shape[1] // 3)
    return np.asarray(np.sort(kernel_us, axis=1)[:, :n_kept].mean(axis=1))

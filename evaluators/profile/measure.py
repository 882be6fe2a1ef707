"""Times networks: whole runs by the clock, and each kernel's share of a run by onnxruntime's profiler."""

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
from evaluators.profile.machine_load import Anchor, times_us
from evaluators.profile.sketch import Place, Sketch
from evaluators.runtime import open_session, timed_run
from spaces.errors import EvaluationError
from spaces.stages.artifact import Artifact

# Duration of a visit. The first dozens of runs after another network are up to a tenth slower, and the time to be
# measured is that of a network that runs repeatedly.
_VISIT_US = 5000.0
_MOST_RUNS = 60
_WARM_UP = 2  # runs, because another network used the caches before
_AT_ONCE = 16  # networks that are visited in turn


@dataclass(frozen=True)
class Effort:
    """Number of visits to each network; each visit times runs with and without the profiler."""

    visits: int = 2


@dataclass(frozen=True)
class Sample:
    """One network's times.

    Attributes:
        graph: The network's kernels, as onnxruntime runs them.
        total_us: Median time of a run.
        total_load_us: The anchor's median time between these runs.
        kernel_us: Each kernel's time by onnxruntime's profiler, including the profiler's overhead, `(n_kernels,)`.
        kernel_load_us: The anchor's median time between the profiled runs.
        spread: Interquartile range of single runs over `total_us`.
    """

    graph: OpGraph
    total_us: float
    total_load_us: float
    kernel_us: NDArray[np.float64]
    kernel_load_us: float
    spread: float


def open_anchor(threads: int) -> Anchor:
    """Opens the anchor: a network of small kernels, which a neighbour on the same core disturbs most."""
    sketch = Sketch(np.random.default_rng(1))
    x = Place("input", (24, 14, 14))
    for _ in range(6):
        x = sketch.conv(sketch.conv(x, x.shape[0], 3, groups=x.shape[0]), 40, 1)
    return Anchor(runner(sketch.artifact((24, 14, 14), x), threads))


def runner(artifact: Artifact, threads: int) -> Callable[[], object]:
    """Opens a session, and returns a function that runs it once, in the way in which latency is timed."""
    session = open_session(artifact.onnx_bytes, threads)
    return timed_run(session, artifact.input.zeros(1))


def measured(
    networks: Iterator[Artifact], anchor: Anchor, threads: int, seconds: float, effort: Effort
) -> Iterator[Sample]:
    """Times networks in turn, until `seconds` are over or all networks are timed."""
    end = monotonic() + seconds
    active: list[_Subject] = []
    subjects = _subjects(networks, threads)
    more = True
    with ExitStack() as stack:
        stack.callback(_close, active)
        while (more or active) and monotonic() < end:
            while more and len(active) < _AT_ONCE:
                prepared = next(subjects, None)
                active += [] if prepared is None else [prepared]
                more = prepared is not None
            for subject in list(active):
                subject.visit(anchor)
                if subject.visits >= effort.visits:
                    active.remove(subject)
                    yield subject.finish()
                if monotonic() >= end:
                    break


def _subjects(networks: Iterator[Artifact], threads: int) -> "Iterator[_Subject]":
    """Opens the networks, and skips the few that this onnxruntime cannot run."""
    good, bad = 0, 0
    for artifact in networks:
        try:
            yield _Subject(artifact, threads)
            good += 1
        except EvaluationError:
            bad += 1
            if bad > 10 + good:
                raise


def _close(subjects: "list[_Subject]") -> None:
    for subject in subjects:
        subject.close()


@dataclass
class _Track:
    """Single runs of one session.

    Attributes:
        run: Runs the session.
        n_runs: Runs so far.
        times_us: Time of each timed run, us, by the number of the run (the same as in the profile).
        anchor_us: Times of the anchor between them.
    """

    run: Callable[[], object]
    n_runs: int = 0
    times_us: dict[int, float] = field(default_factory=dict)
    anchor_us: list[float] = field(default_factory=list)

    def visit(self, anchor: Anchor) -> None:
        """Times some runs between two timings of the anchor."""
        for _ in range(_WARM_UP):
            (once,) = self._timed(1).values()
        n = int(np.clip(_VISIT_US / once, 2, _MOST_RUNS))
        self.anchor_us.append(anchor.timing_us())
        self._timed(_WARM_UP)  # the anchor used the caches before
        self.times_us |= self._timed(n)
        self.anchor_us.append(anchor.timing_us())

    def _timed(self, n: int) -> dict[int, float]:
        first = self.n_runs
        self.n_runs += n
        return {first + i: float(t) for i, t in enumerate(times_us(self.run, n, warm_up=0))}


class _Subject:
    """A network that is being timed."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="paredown-")
        try:
            self._probe = Probe(artifact, Path(self._folder.name), threads)
            self._plain = _Track(runner(artifact, threads))
            self._profiled = _Track(self._probe.run)
            self._plain.run()
            self._profiled.run()
            self._profiled.n_runs = 1  # the profile includes the run above
        except EvaluationError:
            self.close()
            raise
        self.visits = 0

    def visit(self, anchor: Anchor) -> None:
        """Times runs without and with the profiler."""
        self._plain.visit(anchor)
        self._profiled.visit(anchor)
        self.visits += 1

    def finish(self) -> Sample:
        """Closes the network, and returns its times."""
        profiled = self._probe.finish()
        self.close()
        quarter, median, three = np.quantile(list(self._plain.times_us.values()), [0.25, 0.5, 0.75])
        return Sample(
            profiled.graph,
            float(median),
            float(np.median(self._plain.anchor_us)),
            _interquartile_mean(profiled.kernel_us[:, list(self._profiled.times_us)]),
            float(np.median(self._profiled.anchor_us)),
            float((three - quarter) / median),
        )

    def close(self) -> None:
        """Removes the profiler's files."""
        self._folder.cleanup()


def _interquartile_mean(kernel_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns each kernel's interquartile mean, `(n_kernels,)`: a median would be whole microseconds, as the profiler rounds."""
    n = kernel_us.shape[1]
    return np.asarray(np.sort(kernel_us, axis=1)[:, n // 4 : n - n // 4].mean(axis=1))

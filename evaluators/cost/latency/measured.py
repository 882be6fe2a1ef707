"""Latency timed on this machine, alternating with the float model for equal machine load."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluators.base import Evaluation, EvaluationContext, Evaluator, Measurement, Outline
from evaluators.column import Column
from evaluators.cost.latency.order import median_bounds
from evaluators.cost.latency.turns import run_times_ns, time_in_turns
from evaluators.runtime import fixed_batch, open_session, timed_run
from spaces.errors import ConfigError, EvaluationError
from spaces.quantization.formats.stored import simulated_layers, simulated_text
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import n_rows

_WARM_UP_RUNS = 5
_MIN_ROUNDS = 2  # each order of the two models once
_MAX_RUNS_A_BLOCK = 200
_NS_A_MS = 1e6
_BLOCKS = 30  # of `max_seconds`, one block of runs of a model that is timed again: 10 ms


class LatencyEvaluator(Evaluator):
    """Times batch 1 in onnxruntime for the devices that are this machine (`measured: true`).

    After a warm-up, the float model (A) and the candidate (B) run in blocks A B, B A, A B, ... with as many
    runs per block as fit the time; the first run of a block is not counted because the caches still hold the
    other model.

    Yields for each such device `latency_ms` (median over the rounds of a block's median) with its distribution-free interval
    `latency_ms_low` and `latency_ms_high` (see `median_bounds`; 95 % from 6 rounds on), `latency_iqr_ms` (interquartile range of
    single runs), `latency_float_ms` (the float model's in the same rounds) and `speedup` (float / candidate, above 1 is
    faster). The interval is that of one session at one moment: what could be on the front is timed again by
    `time_again`, whose interval also covers the variation between sessions and moments.

    Args:
        rounds: Number of rounds of one block per model; slow models get fewer, but at least 2.
        max_seconds: Time budget of all timed runs, both models together; exceeded if 2 rounds take longer.
        threads: onnxruntime's intra-op threads.
        pin: Whether to pin the timed thread to as many fixed cores as threads, where the system allows it.

    Raises:
        ConfigError: An argument is out of range.
    """

    name: ClassVar[str] = "latency"
    exclusive: ClassVar[bool] = True
    repeatable: ClassVar[bool] = False

    def __init__(self, rounds: int = 8, max_seconds: float = 0.3, threads: int = 1, pin: bool = True) -> None:
        if rounds < _MIN_ROUNDS or threads < 1:
            raise ConfigError(
                f"evaluator.latency: rounds ({rounds}) must be at least {_MIN_ROUNDS}, threads ({threads}) at least 1"
            )
        if not max_seconds > 0:
            raise ConfigError(f"evaluator.latency.max_seconds must be above 0, but is {max_seconds}")
        self.rounds = rounds
        self.max_seconds = max_seconds
        self.threads = threads
        self.pin = pin

    def times(self, context: EvaluationContext) -> bool:
        """Whether a device of the study is this machine."""
        return any(device.measured for device in context.devices.values())

    def columns(self, outline: Outline) -> frozenset[str]:
        """Returns the columns of this machine's devices."""
        timed = [f"latency_{end}" for end in ("ms", "ms_low", "ms_high", "iqr_ms", "float_ms")]
        return outline.costs((*timed, "speedup"), measured=True)

    def evaluate(self, artifact: Artifact, context: EvaluationContext) -> Evaluation:
        """Returns the timings of one ONNX artifact; none if no device of the study is this machine.

        Raises:
            EvaluationError: One of the models cannot be run.
        """
        names = measured_devices(context)
        if not names:
            return Evaluation(())
        if why := _why_not_timed(artifact):
            return Evaluation((), {"because": {str(Column.of("latency_ms", name)): why for name in names}})
        with pinned(self.threads if self.pin else 0) as cores:
            # Sessions are opened inside because their threads inherit the CPU affinity of the opening thread.
            runs = [
                runner(model, context.split, self.threads) for model in (context.reference.artifact, artifact)
            ]
            timings = take_turns(runs[0], runs[1], self.rounds, self.max_seconds)
        details = {
            "cores": cores,
            "threads": self.threads,
            "rounds": timings.rounds,
            "runs": len(timings.second_ms),
            "runs_float": len(timings.first_ms),
            # Machine load: above about 1, other processes disturbed the timing.
            "load_average_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        }
        return Evaluation(
            tuple(m for name in names for m in _measurements(timings, name)), {"latency": details}
        )

    def time_again(
        self, artifacts: Sequence[Artifact], context: EvaluationContext, n_rounds: int, offset: int = 0
    ) -> NDArray[np.float64]:
        """Times several ONNX artifacts in turns, each in a new session in every round: see `time_in_turns`.

        Args:
            artifacts: Files of this study that were timed before.
            context: As of `evaluate`.
            n_rounds: Number of rounds.
            offset: Number of earlier rounds, with which the order goes on.

        Returns:
            Times in ms, `(n_artifacts, n_rounds)`.

        Raises:
            EvaluationError: One of the models cannot be run.
        """

        def opener(artifact: Artifact) -> Callable[[], Callable[[], object]]:
            return lambda: runner(artifact, context.split, self.threads)

        with pinned(self.threads if self.pin else 0):
            return time_in_turns(
                [opener(artifact) for artifact in artifacts], n_rounds, self.max_seconds / _BLOCKS, offset
            )


def measured_devices(context: EvaluationContext) -> list[str]:
    """Returns the names of the devices that are this machine."""
    return [name for name, device in context.devices.items() if device.measured]


def _why_not_timed(artifact: Artifact) -> str:
    """Returns why a file's time would not be that of its format; empty if it would be."""
    simulated = simulated_layers(artifact.onnx_bytes)
    return simulated_text(simulated) if simulated else ""


@dataclass(frozen=True)
class Timings:
    """Times of single runs of two functions in ms, an array `(n_runs,)` float64 per block, in the order of the rounds."""

    first_blocks: list[NDArray[np.float64]]
    second_blocks: list[NDArray[np.float64]]

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.first_blocks)

    @property
    def first_ms(self) -> NDArray[np.float64]:
        """Times of all runs of the first function, `(n_first,)`."""
        return np.concatenate(self.first_blocks)

    @property
    def second_ms(self) -> NDArray[np.float64]:
        """Times of all runs of the second function, `(n_second,)`."""
        return np.concatenate(self.second_blocks)


def take_turns(
    first: Callable[[], object], second: Callable[[], object], rounds: int, max_seconds: float
) -> Timings:
    """Times two functions in alternating order, which cancels a linear drift of the machine's speed.

    Args:
        first: The function whose block comes first in even rounds.
        second: The function whose block comes first in odd rounds.
        rounds: Number of rounds; fewer, but at least 2, if the time does not suffice.
        max_seconds: Time budget of all timed runs.
    """
    both = (first, second)
    once_s = [float(np.median(run_times_ns(run, _WARM_UP_RUNS))) / _NS_A_MS / 1e3 for run in both]
    rounds = int(np.clip(max_seconds / max(sum(once_s), 1e-9), _MIN_ROUNDS, rounds))
    # Each model gets half the time, so the faster one is run more often.
    n_runs = [int(np.clip(max_seconds / 2 / rounds / max(s, 1e-9), 1, _MAX_RUNS_A_BLOCK)) for s in once_s]
    times: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            both[which]()
            times[which].append(run_times_ns(both[which], n_runs[which]) / _NS_A_MS)
    return Timings(*times)


@contextmanager
def pinned(n_cores: int) -> Iterator[list[int] | None]:
    """Pins the calling thread to `n_cores` fixed cores; yields their numbers, or None if it is not pinned.

    The highest-numbered cores that the process may use are taken because the first ones serve most
    interrupts.
    """
    before = os.sched_getaffinity(0) if n_cores and hasattr(os, "sched_getaffinity") else None
    if before is None or len(before) < n_cores:
        yield None
        return
    cores = sorted(before)[-n_cores:]
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, before)


def runner(artifact: Artifact, split: Split, threads: int) -> Callable[[], object]:
    """Returns a function that runs the model once on the first examples of a split.

    Raises:
        EvaluationError: The model cannot be opened, or the split has too few examples for its batch.
    """
    session = open_session(artifact.onnx_bytes, threads)
    n = fixed_batch(session) or 1
    inputs = next((batch for batch, _ in split.batches(n, n)), None)
    if inputs is None or n_rows(inputs) < n:
        raise EvaluationError(f"the split has too few examples to time a batch of {n}")
    return timed_run(session, inputs)


def _measurements(timings: Timings, device: str) -> list[Measurement]:
    of_float, own = (
        [float(np.median(block)) for block in blocks]
        for blocks in (timings.first_blocks, timings.second_blocks)
    )
    quarter, three_quarters = np.percentile(timings.second_ms, [25, 75])
    return [
        *latency_measurements(own, of_float, device),
        _ms("latency_iqr_ms", three_quarters - quarter, device),
    ]


def latency_measurements(
    own_ms: Sequence[float], float_ms: Sequence[float], device: str
) -> list[Measurement]:
    """Returns the latency with its interval, the float model's, and the ratio of the two, from the medians of rounds.

    Args:
        own_ms: The model's times by round, at least one.
        float_ms: The float model's.
        device: The device that was timed.
    """
    median, of_float = float(np.median(own_ms)), float(np.median(float_ms))
    low, high = median_bounds(own_ms)
    return [
        _ms("latency_ms", median, device),
        _ms("latency_ms_low", low, device),
        _ms("latency_ms_high", high, device),
        _ms("latency_float_ms", of_float, device),
        Measurement("speedup", of_float / median, "x", "measured", device),
    ]


def _ms(name: str, value: float, device: str) -> Measurement:
    return Measurement(name, float(value), "ms", "measured", device)

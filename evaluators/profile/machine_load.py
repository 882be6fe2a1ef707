"""The machine load: how slow the machine is at the moment, measured by an anchor, a fixed network that is timed repeatedly.

On a shared machine the speed jumps between states, because a neighbour shares the processor core or the clock drifts,
within milliseconds or for minutes. So the anchor is timed before and after every measurement, and the sensitivity of each
operator to the load is fitted: kernels slow down by different factors.
"""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel

Floats = NDArray[np.float64]
Operator = tuple[str, str]  # a kernel's `op` and class

_CALM_TOLERANCE = 1.1  # of the anchor's time, relative to its undisturbed time
_CALM_SHARE = (
    0.01  # quantile of the anchor's times that is its undisturbed time; the minimum may be an outlier
)
_FIRST_TIMINGS = 100
_PRIOR = 5.0  # weight of the sensitivity over all operators, as a sum of squared log loads
_LARGEST_LOG_ERROR = 0.5  # of a kernel's time over its formula; more is not due to the load


class Anchor:
    """Measures the machine load by the time of a fixed network.

    Args:
        run: Runs the fixed network once.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self.timings_us: list[float] = []
        for _ in range(_FIRST_TIMINGS):
            self.timing_us()

    def timing_us(self) -> float:
        """Times the anchor twice; returns the mean in us."""
        mean_us = float(times_us(self._run, 2).mean())
        self.timings_us.append(mean_us)
        return mean_us

    @property
    def typical_us(self) -> float:
        """Median time of the anchor, us: the typical machine load."""
        return float(np.median(self.timings_us))

    @property
    def calm_us(self) -> float:
        """Time of the anchor when nothing else uses the machine, us."""
        return float(np.quantile(self.timings_us, _CALM_SHARE))

    @property
    def calm_share(self) -> float:
        """Share of the timings in which nothing else used the machine."""
        return float(np.mean(np.array(self.timings_us) <= _CALM_TOLERANCE * self.calm_us))


def times_us(run: Callable[[], object], n: int, warm_up: int = 1) -> Floats:
    """Times `n` single runs in microseconds, `(n,)`, after `warm_up` runs that are not timed."""
    for _ in range(warm_up):
        run()
    times = np.empty(n)
    for i in range(n):
        start = perf_counter_ns()
        run()
        times[i] = perf_counter_ns() - start
    return times / 1e3


def sensitivities(
    kernels: Iterable[Kernel], log_errors: Floats, log_loads: Floats, weights: Floats
) -> Mapping[Operator, float]:
    """Fits for each operator how its time depends on the machine load, relative to the anchor's.

    Args:
        kernels: Timed kernels.
        log_errors: Logarithm of their times, divided by the machine load, over those of a formula, `(n_kernels,)`.
        log_loads: Logarithm of the machine load during the timing, over the typical one, `(n_kernels,)`.
        weights: Weight of each kernel, `(n_kernels,)`.

    Returns:
        By operator, the exponent of the machine load to which its time is proportional; 1 slows down like the anchor.
    """
    rows: dict[Operator, list[int]] = {}
    for i, kernel in enumerate(kernels):
        rows.setdefault((kernel.op, kernel.kind), []).append(i)
    usual = _slope(log_errors, log_loads, weights, 0.0)
    return {
        operator: 1.0 + float(np.clip(_slope(log_errors[of], log_loads[of], weights[of], usual), -1, 1.5))
        for operator, of in rows.items()
    }


def _slope(log_errors: Floats, log_loads: Floats, weights: Floats, prior: float) -> float:
    weights = weights / weights.mean()
    errors = np.clip(log_errors - np.median(log_errors), -_LARGEST_LOG_ERROR, _LARGEST_LOG_ERROR)
    machine_loads = log_loads - np.average(log_loads, weights=weights)
    return float(
        (np.sum(weights * machine_loads * errors) + _PRIOR * prior)
        / (np.sum(weights * machine_loads**2) + _PRIOR)
    )


def powers(kernels: Sequence[Kernel], exponents: Mapping[Operator, float]) -> Floats:
    """Returns each kernel's exponent of the machine load, `(n_kernels,)`; 1 for operators without one."""
    return np.array([exponents.get((k.op, k.kind), 1.0) for k in kernels], np.float64)


def cpu_name() -> str:
    """Returns the processor's name, as the operating system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

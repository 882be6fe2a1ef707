"""The machine's mood: how fast it is at the moment, told by an anchor, a fixed network that is timed again and again.

On a shared machine the speed jumps between states, because a neighbour shares the processor core or the clock drifts,
within milliseconds or for minutes. So the anchor is looked at before and after every piece of timing, and each
operator's sensitivity to the mood is learned: kernels slow down by different factors.
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

_CALM_TOLERANCE = 1.1
_CALM_SHARE = 0.01  # the calm level is that of the fastest moments, but not of a lucky few
_FIRST_TIMINGS = 100
_PRIOR = 5.0  # how much evidence (sum of squared log moods) it takes to leave the usual sensitivity
_LARGEST_LOG = 0.5  # of a kernel over its formula; more is no question of mood


class Anchor:
    """Watches the machine's speed.

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
        look = float(times_us(self._run, 2).mean())
        self.timings_us.append(look)
        return look

    @property
    def typical_us(self) -> float:
        """Time of the anchor in the middle of all moments, from the slow to the fast."""
        return float(np.median(self.timings_us))

    @property
    def calm_us(self) -> float:
        """Time of the anchor when nothing disturbs it."""
        return float(np.quantile(self.timings_us, _CALM_SHARE))

    @property
    def calm_share(self) -> float:
        """Share of the moments that were calm."""
        return float(np.mean(np.array(self.timings_us) <= _CALM_TOLERANCE * self.calm_us))


def times_us(run: Callable[[], object], n: int, warm_up: int = 1) -> Floats:
    """Times `n` single runs in microseconds, `(n,)`, after some that warm the caches."""
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
    """Fits how much more (or less) than proportionally to the anchor each operator slows down.

    Args:
        kernels: Timed kernels.
        log_errors: Logarithm of their times, divided by the mood, over what a formula gives, `(n_kernels,)`.
        log_loads: Logarithm of the mood that they were timed in, over the typical one, `(n_kernels,)`.
        weights: How much each counts, `(n_kernels,)`.

    Returns:
        Operator to the power of the mood that its time goes with; 1 is proportional.
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
    errors = np.clip(log_errors - np.median(log_errors), -_LARGEST_LOG, _LARGEST_LOG)
    machine_loads = log_loads - np.average(log_loads, weights=weights)
    return float(
        (np.sum(weights * machine_loads * errors) + _PRIOR * prior)
        / (np.sum(weights * machine_loads**2) + _PRIOR)
    )


def powers(kernels: Sequence[Kernel], found: Mapping[Operator, float]) -> Floats:
    """Returns each kernel's power of the mood, `(n_kernels,)`."""
    return np.array([found.get((k.op, k.kind), 1.0) for k in kernels], np.float64)


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()

"""Telling the machine's calm moments from the others by an anchor: a fixed network that is timed again and again.

On a shared machine the speed jumps between states, because a neighbour shares the processor core or the clock drifts,
and kernels slow down by different factors. So what was timed in a disturbed moment is not divided by anything, but
thrown away and timed again.
"""

from collections.abc import Callable
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1.08  # over the calm level
_CALM_SHARE = 0.02  # the calm level is that of the fastest moments, but not of a lucky few
_HISTORY = 50000
_LEAST_HISTORY = 200
_UPDATE = 50  # looks


class Anchor:
    """Watches the machine's speed.

    Args:
        run: Runs the fixed network once.
    """

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self.history_us: list[float] = []
        self._fastest_us: list[float] = []
        self.level_us = float("inf")
        while len(self.history_us) < _LEAST_HISTORY:
            self.is_calm()

    def is_calm(self) -> bool:
        """Times the anchor twice, and says whether the machine is in the fastest state that it visits regularly."""
        faster, slower = sorted(times_us(self._run, 2))
        self.history_us.append(slower)
        self._fastest_us.append(faster)
        if len(self.history_us) % _UPDATE == 0:
            recent = np.array(self._fastest_us[-_HISTORY:])
            self.level_us = float(np.quantile(recent, _CALM_SHARE))  # time of the anchor in calm moments
        return bool(slower <= _TOLERANCE * self.level_us)

    @property
    def calm_share(self) -> float:
        """Share of the moments that were calm."""
        return float(np.mean(np.array(self.history_us) <= _TOLERANCE * self.level_us))

    @property
    def disturbed_factor(self) -> float:
        """How much slower the anchor is in the other moments, by the median; 1 where there are none."""
        history = np.array(self.history_us)
        others = history[history > _TOLERANCE * self.level_us]
        return float(np.median(others)) / self.level_us if len(others) else 1.0


def times_us(run: Callable[[], object], n: int, warm_up: int = 1) -> NDArray[np.float64]:
    """Times `n` single runs in microseconds, `(n,)` float64, after some that warm the caches."""
    for _ in range(warm_up):
        run()
    times = np.empty(n)
    for i in range(n):
        start = perf_counter_ns()
        run()
        times[i] = perf_counter_ns() - start
    return times / 1e3

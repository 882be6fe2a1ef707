"""Times several models in turns, each in a new session in every round."""

from collections.abc import Callable, Sequence
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

_MOST_RUNS = 200
_NS_A_MS = 1e6

Open = Callable[[], Callable[[], object]]
"""Opens a new session; returns a function that runs it once."""


def time_in_turns(
    models: Sequence[Open], n_rounds: int, block_s: float, offset: int = 0
) -> NDArray[np.float64]:
    """Times every model once in each round; returns the median time of a run in ms, `(n_models, n_rounds)`.

    In every round each model gets a new session, a warm-up and a block of runs. Two sessions of one file differ by several
    per cent, because their memory lies elsewhere: the variation between sessions has to be in the figures that an interval is
    computed from (Kalibera, Jones 2013, "Rigorous benchmarking in reasonable time", ISMM: the highest level that varies is
    the one to repeat). The order is reversed in every other round and begins with another model in each, which
    cancels a steady drift and the influence of the model before.

    Args:
        models: Opens a session of each model.
        n_rounds: Number of rounds.
        block_s: Seconds that a block of runs takes; a slow model is run once.
        offset: Number of earlier rounds, with which the order goes on.
    """
    times = np.empty((len(models), n_rounds))
    for column in range(n_rounds):
        for row in _order(len(models), offset + column):
            times[row, column] = _block_ms(models[row](), block_s)
    return times


def _order(n: int, turn: int) -> list[int]:
    first = turn // 2 % n if n else 0
    order = [(first + i) % n for i in range(n)]
    return order[::-1] if turn % 2 else order


def _block_ms(run: Callable[[], object], block_s: float) -> float:
    first = run_times_ns(run, 1)  # of a new session it is slower than the others
    warm_up = run_times_ns(run, _fitting(first, 0.2 * block_s))
    return float(np.median(run_times_ns(run, _fitting(warm_up, block_s)))) / _NS_A_MS


def _fitting(times_ns: NDArray[np.float64], seconds: float) -> int:
    """Returns how many runs fit into some seconds, 1 to 200."""
    return int(np.clip(seconds * 1e9 / max(float(np.median(times_ns)), 1.0), 1, _MOST_RUNS))


def run_times_ns(run: Callable[[], object], n: int) -> NDArray[np.float64]:
    """Returns the times of `n` runs in ns, `(n,)`."""
    times = np.empty(n)
    for i in range(n):
        start = perf_counter_ns()
        run()
        times[i] = perf_counter_ns() - start
    return times

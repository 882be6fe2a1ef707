"""Times models in turns until their order is decided, or a tie."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.latency.order import TIE, Ratio, ratio
from search.record.front import TIMED, is_timed, losses
from search.record.results import BASELINE, Objective, TrialRecord

FIRST_ROUNDS, MORE_ROUNDS, MOST_ROUNDS = 8, 4, 24
RUNS_A_ROUND = 5  # of a slow model, with the opening of its session
MOST_S = 60.0  # after which no more rounds begin

Times = dict[int, list[float | None]]
"""By number a time per round in ms; None in rounds without the model."""
TimeAgain = Callable[[Sequence[int], int, int], list[list[float]]]
"""Times models, by their numbers, for a number of rounds after some earlier ones; returns ms, `(n_models, n_rounds)`."""


def race(records: Sequence[TrialRecord], objectives: Sequence[Objective], time_again: TimeAgain) -> Times:
    """Times models in turns: 8 rounds all of them, then up to 24 those whose place is not decided.

    The uncompressed model is timed in all rounds. Of two models the order is decided if the 99 % interval of their ratio lies on one side of 1, or within 3 %
    of it (a tie). An order matters where it decides whether a model is on the front, or among those that cost at most 3 % more
    than the cheapest (see `picks`). What is not decided after 24 rounds, or a minute (of large models after 2 rounds, if these
    take longer), is a tie. Where no latency is an objective no order matters.

    Args:
        records: The models, at least one, whose objectives except the timed one are known.
        objectives: The axes.
        time_again: Times them.
    """
    exact = [not is_timed(records, o.column) for o in objectives]
    others = {r.number: loss[exact] for r in records if (loss := losses(r, objectives)) is not None}
    numbers = [r.number for r in records]
    times: Times = {n: [] for n in numbers}
    began, running, n_rounds = time.monotonic(), numbers, _first_rounds(records)
    while running:
        done = max(map(len, times.values()))
        for number, row in zip(running, time_again(running, n_rounds, done), strict=True):
            times[number] += row
        for number in set(numbers) - set(running):
            times[number] += [None] * n_rounds
        if done + n_rounds >= MOST_ROUNDS or time.monotonic() - began > MOST_S:
            break
        still_open = set() if all(exact) else undecided(times, others)
        running = [n for n in numbers if n in still_open or (still_open and n == BASELINE)]
        n_rounds = MORE_ROUNDS
    return times


def _first_rounds(records: Sequence[TrialRecord]) -> int:
    """Returns 8, or as many pairs of rounds as fit into a minute, if the models are that slow; at least 2."""
    times_ms = [
        max((m.value for m in r.measurements if m.name == TIMED and m.source == "measured"), default=0.0)
        for r in records
    ]
    round_ms = RUNS_A_ROUND * sum(times_ms)
    return 2 * int(np.clip(1e3 * MOST_S / max(round_ms, 1e-3) / 2, 1, FIRST_ROUNDS // 2))


def without_load(times: Times) -> Times:
    """Returns the times as if the machine had had the same load in all rounds: the uncompressed model's median time.

    In each round a time is divided by the uncompressed model's and multiplied by the median of the latter's, as models that
    left the race early are to be compared with those that did not. Without the uncompressed model they stay as they
    are.
    """
    of_float = times.get(BASELINE)
    if of_float is None or not all(of_float):
        return times
    usual = float(np.median([t for t in of_float if t]))
    return {
        number: [t / f * usual if t and f else None for t, f in zip(row, of_float, strict=True)]
        for number, row in times.items()
    }


def undecided(times: Times, others: Mapping[int, NDArray[np.float64]]) -> set[int]:
    """Returns the numbers of the models whose order with another one matters and is not decided.

    Args:
        times: Times by round.
        others: The objectives that are not timed, as losses `(k,)`; a model without them is compared with the
            fastest only.
    """
    medians = {n: float(np.median([t for t in row if t])) for n, row in times.items()}
    fastest = min(medians, key=lambda n: medians[n])
    found: set[int] = set()
    for n in times:
        beside = ratio(times[n], times[fastest])
        if n != fastest and beside is not None and beside.low <= 1 + TIE < beside.high:
            found |= {n, fastest}
    return found | _undecided_on_front(times, others)


def _undecided_on_front(times: Times, others: Mapping[int, NDArray[np.float64]]) -> set[int]:
    """Returns models that are on the front if they are faster than another that is no worse in all else, and those others."""
    orders: dict[tuple[int, int], Ratio] = {
        (a, b): order
        for a in others
        for b in others
        if a != b and (others[b] <= others[a]).all() and (order := ratio(times[a], times[b])) is not None
    }
    surely_off = {a for (a, _), order in orders.items() if order.low > 1}
    open_pairs = [
        pair for pair, order in orders.items() if not order.is_decided and not surely_off & set(pair)
    ]
    return {n for pair in open_pairs for n in pair}

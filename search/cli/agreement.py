"""Whether the seeds of a sweep agree: a sentence for each setting and device on what its studies ship."""

from collections.abc import Iterator, Sequence
from math import hypot
from typing import Any

from evaluators.cost.latency.order import TIE
from search.cli.fleet import Fleet, Line, Shipped
from search.cli.fleet_units import label_of, text_of, unit_of_name
from search.record.results import BASELINE
from search.report.findings import numbers
from spaces.candidate import value_text

_COSTS = ("latency_ms", "file_bytes")  # the first that a sweep has is compared
_MOST_SENTENCES = 6
_MOST_KNOBS = 10


def agreement(found: Fleet) -> list[str]:
    """Returns the sentences; none where each setting has one seed.

    The picks of several seeds tie if the lowest and the highest value of the metric can't be told apart, and those of the cost
    are within the 3 % of a study's own tie rule.
    """
    lines = [line for line in found.lines if sum(s.number is not None for s in line.shipped) > 1]
    if len(lines) <= _MOST_SENTENCES:
        return [_sentence(found, line) for line in lines]
    n_ties = sum(not any(_differences(found, line)) for line in lines)
    return [f"In {n_ties} of {len(lines)} lines the picks of the seeds tie, in the others they differ."]


def _sentence(found: Fleet, line: Line) -> str:
    picks = _picks(line)
    where = ", ".join(
        filter(None, (*(f"{k}={v}" for k, v in zip(found.settings, line.settings, strict=True)), line.device))
    )
    differences = list(_differences(found, line))
    names = _compared(found)
    verdict = (
        f"differ in {numbers.listing(differences)}"
        if differences
        else "tie: " + numbers.listing([_range(name, picks, line) for name in names if _has(name, picks)])
    )
    begin = f"{where}: the" if where else "The"
    return f"{begin} picks of {len(picks)} seeds {verdict}. {_knobs(picks)}".rstrip()


def _picks(line: Line) -> list[Shipped]:
    """Returns the studies that ship a model."""
    return [s for s in line.shipped if s.number is not None]


def _compared(found: Fleet) -> list[str]:
    """Returns the names of the metric, on the test split if there is one, and of the cost."""
    metrics = [name for name in found.names if not unit_of_name(name)]
    metric = next((name for name in metrics if name.startswith("test_")), next(iter(metrics), None))
    cost = next((name for name in _COSTS if name in found.names), None)
    return [name for name in (metric, cost) if name is not None]


def _has(name: str, picks: Sequence[Shipped]) -> bool:
    return all(name in s.values for s in picks)


def _differences(found: Fleet, line: Line) -> Iterator[str]:
    """Yields what differs by more than intervals, or the tie rule, allow: e.g. `latency, 1.2 ms (seed 0) to 1.5 ms (seed 2)`."""
    picks = _picks(line)
    for name in _compared(found):
        if not _has(name, picks):
            continue
        low, high = _ends(name, picks)
        if not _within(name, low, high):
            yield f"{label_of(name)}, {_of_seed(name, low, line)} to {_of_seed(name, high, line)}"


def _ends(name: str, picks: Sequence[Shipped]) -> tuple[Shipped, Shipped]:
    return min(picks, key=lambda s: s.values[name]), max(picks, key=lambda s: s.values[name])


def _within(name: str, low: Shipped, high: Shipped) -> bool:
    """Whether two values count as equal: by the interval of their difference; without intervals, and for costs, by the tie rule.

    The interval is Newcombe's for independent proportions (1998, "Interval estimation for the difference between independent
    proportions", method 10), which is wide for two models that were judged by the same examples.
    """
    difference = high.values[name] - low.values[name]
    ends = high.values.get(f"{name}_low"), low.values.get(f"{name}_high")
    if ends[0] is None or ends[1] is None or unit_of_name(name):
        return difference <= TIE * abs(low.values[name])
    return difference <= hypot(high.values[name] - ends[0], ends[1] - low.values[name])


def _of_seed(name: str, shipped: Shipped, line: Line) -> str:
    return f"{text_of(shipped.values[name], line.unit(name))} (seed {shipped.settings.get('seed', '?')})"


def _range(name: str, picks: Sequence[Shipped], line: Line) -> str:
    low, high = (text_of(s.values[name], line.unit(name)) for s in _ends(name, picks))
    return f"{label_of(name)} {low}" if low == high else f"{label_of(name)} {low} to {high}"


def _knobs(picks: Sequence[Shipped]) -> str:
    """Returns which knobs the picks share and in which they differ; an empty text without knobs."""
    if kept := [s.settings.get("seed", "?") for s in picks if s.number == BASELINE]:
        return f"The float model is kept by seed {numbers.listing(kept)}."
    names = dict.fromkeys(name for s in picks for name in s.knobs)
    differing = [name for name in names if len({str(s.knobs.get(name)) for s in picks}) > 1]
    shared = [f"{name}={_text(picks[0].knobs[name])}" for name in names if name not in differing]
    if not differing:
        return "Their knobs are equal." if names else ""
    same = f"All have {_shortened(shared)}; they" if shared else "They"
    return f"{same} differ in {_shortened(differing)}."


def _text(value: Any) -> str:
    """Returns a knob's value of a summary, whose lists are JSON's, as it is written in a config."""
    return value_text(tuple(value) if isinstance(value, list) else value)


def _shortened(texts: Sequence[str]) -> str:
    rest = len(texts) - _MOST_KNOBS
    return numbers.listing([*texts[:_MOST_KNOBS], *([f"{rest} more"] if rest > 0 else [])])

"""What the layers of the best model say: which one hurts most, and what another trial did better there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from search.record.results import Results, TrialRecord
from search.report.findings.figures import direction, headline_metric
from search.report.findings.summary import knob_texts

_CLEARLY_BETTER_DB = 3.0  # half the error power
_IDENTICAL_DB = 200.0  # what evaluators say of equal tensors, for want of infinity in JSON
KEYS = {"output_sqnr_db": "output SQNR", "weight_sqnr_db": "weight SQNR"}


@dataclass(frozen=True)
class Advice:
    """The layer that hurts most in one trial, and what the study knows about it.

    Attributes:
        layer: Name of the layer.
        sqnr_db: Its signal-to-quantization-noise ratio in dB.
        key: Which one (`output_sqnr_db` or `weight_sqnr_db`).
        better: A trial that does clearly better at this layer; None if there is none.
        better_db: What it reaches there, in dB.
        differing: Knob to (this trial's value, the better one's); None where the knob is inactive.
        better_keeps_float: Whether the better trial keeps the layer in floating point.
    """

    layer: str
    sqnr_db: float
    key: str
    better: TrialRecord | None
    better_db: float | None
    differing: dict[str, tuple[str | None, str | None]]
    better_keeps_float: bool = False


def layers(record: TrialRecord) -> list[Mapping[str, object]]:
    """Returns the entries of `details["layers"]` that name a layer."""
    entries = record.details.get("layers", ())
    if not isinstance(entries, list | tuple):
        return []
    return [e for e in entries if isinstance(e, Mapping) and "layer" in e]


def sqnr(record: TrialRecord, key: str) -> dict[str, float]:
    """Returns layer to SQNR in dB, for the layers that have one and differ from the float model at all."""
    found = {}
    for entry in layers(record):
        value = entry.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value < _IDENTICAL_DB:
            found[str(entry["layer"])] = float(value)
    return found


def key_of(record: TrialRecord) -> str | None:
    """Returns what the trial's layers are judged by: the output if it was measured, else the weights."""
    return next((key for key in KEYS if sqnr(record, key)), None)


def rivals(results: Results, record: TrialRecord, key: str) -> list[tuple[str, TrialRecord]]:
    """Returns the runner-up on the front and the worst trial by the first metric, as far as they have layers."""
    metric = headline_metric(results)
    if metric is None:
        return []
    sign = 1.0 if direction(results, metric) == "maximize" else -1.0
    judged = [
        t for t in results.trials if t.number != record.number and metric in t.values() and sqnr(t, key)
    ]
    ranked = sorted(judged, key=lambda t: -sign * t.values()[metric])
    runner_up = next((t for t in ranked if t.number in results.front), None)
    found = [("runner-up", runner_up)] if runner_up else []
    if ranked and ranked[-1] is not runner_up:
        found.append(("worst", ranked[-1]))
    return found


def advice(results: Results, record: TrialRecord) -> Advice | None:
    """Returns the layer with the lowest SQNR and the best trial that does clearly better there."""
    key = key_of(record)
    if key is None:
        return None
    own = sqnr(record, key)
    worst = min(own, key=lambda name: own[name])
    better = _better_there(results, record, key, worst, own[worst])
    if better is None:
        return Advice(worst, own[worst], key, None, None, {})
    ours, theirs = knob_texts(record), knob_texts(better)
    paths = dict.fromkeys([*ours, *theirs])
    differing = {p: (ours.get(p), theirs.get(p)) for p in paths if ours.get(p) != theirs.get(p)}
    kept = any(e["layer"] == worst and e.get("float") is True for e in layers(better))
    return Advice(worst, own[worst], key, better, sqnr(better, key)[worst], differing, kept)


def _better_there(
    results: Results, record: TrialRecord, key: str, layer: str, db: float
) -> TrialRecord | None:
    """The trial nearest to `record` (fewest differing knobs) among those that do clearly better at the layer."""
    mine = knob_texts(record)

    def distance(other: TrialRecord) -> int:
        theirs = knob_texts(other)
        return sum(mine.get(p) != theirs.get(p) for p in mine.keys() | theirs.keys())

    better = [t for t in results.trials if sqnr(t, key).get(layer, -math.inf) >= db + _CLEARLY_BETTER_DB]
    return min(better, key=lambda t: (distance(t), t.number), default=None)

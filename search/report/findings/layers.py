"""Per-layer findings: the layer with the lowest SQNR, and a trial in which that layer is clearly better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from search.record.results import StudyRecord, TrialRecord
from search.report.findings.figures import direction, headline_metric
from search.report.findings.summary import knob_texts

_CLEARLY_BETTER_DB = 3.0  # half the error power
IDENTICAL_DB = 200.0  # SQNR that evaluators report for equal tensors: JSON has no infinity
KEYS = {"output_sqnr_db": "output SQNR", "weight_sqnr_db": "weight SQNR"}


@dataclass(frozen=True)
class Advice:
    """The layer with the lowest SQNR in one trial, and a trial that is better at that layer.

    Attributes:
        layer: Name of the layer.
        sqnr_db: Its signal-to-quantization-noise ratio in dB.
        key: Which SQNR that is: `output_sqnr_db` or `weight_sqnr_db`.
        better: A trial whose SQNR at this layer is higher by at least 3 dB; None if there is none.
        better_db: SQNR of the layer in that trial, in dB.
        differing: Knob to its values in this trial and in the better one; None where the knob is inactive.
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
    """Returns the SQNR in dB by layer, without layers that lack it or are equal to the float model's."""
    by_layer = {}
    for entry in layers(record):
        value = entry.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value < IDENTICAL_DB:
            by_layer[str(entry["layer"])] = float(value)
    return by_layer


def key_of(record: TrialRecord) -> str | None:
    """Returns the SQNR to compare layers by: that of outputs if measured, else that of weights; None without."""
    return next((key for key in KEYS if sqnr(record, key)), None)


def rivals(results: StudyRecord, record: TrialRecord, key: str) -> list[tuple[str, TrialRecord]]:
    """Returns (role, trial) of the front's runner-up and of the worst trial by the first metric, with layers."""
    metric = headline_metric(results)
    if metric is None:
        return []
    sign = 1.0 if direction(results, metric) == "maximize" else -1.0
    measured = [
        t for t in results.trials if t.number != record.number and metric in t.values() and sqnr(t, key)
    ]
    ranked = sorted(measured, key=lambda t: -sign * t.values()[metric])
    runner_up = next((t for t in ranked if t.number in results.front), None)
    pairs = [("runner-up", runner_up)] if runner_up else []
    if ranked and ranked[-1] is not runner_up:
        pairs.append(("worst", ranked[-1]))
    return pairs


def advice(results: StudyRecord, record: TrialRecord) -> Advice | None:
    """Returns the layer with the lowest SQNR and the most similar trial that is clearly better there."""
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
    results: StudyRecord, record: TrialRecord, key: str, layer: str, db: float
) -> TrialRecord | None:
    """Returns the trial with fewest differing knobs of those that are clearly better at the layer."""
    own = knob_texts(record)

    def distance(other: TrialRecord) -> int:
        theirs = knob_texts(other)
        return sum(own.get(p) != theirs.get(p) for p in own.keys() | theirs.keys())

    better = [t for t in results.trials if sqnr(t, key).get(layer, -math.inf) >= db + _CLEARLY_BETTER_DB]
    return min(better, key=lambda t: (distance(t), t.number), default=None)

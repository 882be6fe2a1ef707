"""Where the time of a study went, in words: `study.cost_report`."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from search.record.results import StudyRecord
from search.report.findings import numbers

LOW_FIDELITY = ("known", "statistics", "low_fidelity")
"""Steps in which candidates are evaluated at low fidelity, before their trials."""
_BUILDING = ("sparsify", "prune", "recover", "prune_recover", "tokens", "export", "quantize")
_TIMING = ("latency", "power")
_PHASES = {
    "start": "loading, and measuring the uncompressed model",
    "re_evaluation": "scoring the front on the test split and timing it again",
    "explanation": "comparing the layers of the best models",
    "report": "files, report and tracker at the end of each session",
}


@dataclass(frozen=True)
class Spent:
    """Seconds that went into one thing.

    Attributes:
        name: Short name.
        what: What it is, in words.
        seconds: Seconds, added up over sessions and workers.
    """

    name: str
    what: str
    seconds: float


def steps(results: StudyRecord) -> dict[str, float]:
    """Returns the seconds of each step of the trials, the longest first; `other` is the rest of their time."""
    totals: dict[str, float] = defaultdict(float)
    for record in results.trials:
        for step, seconds in record.seconds.items():
            totals[step] += seconds
        rest_s = record.wall_s - sum(record.seconds.values())
        if rest_s > 0:
            totals["other"] += rest_s
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def phases(results: StudyRecord) -> list[Spent]:
    """Returns the time outside the trials, without what took none; empty if no account was kept."""
    known = results.phases
    spent = [Spent(name, what, known.get(name, 0.0)) for name, what in _PHASES.items()]
    if "search" in known:
        duplicates_s = known.get("duplicates", 0.0)
        idle_s = known["search"] - duplicates_s - sum(steps(results).values())
        spent.append(Spent("duplicates", "building files that a trial had measured already", duplicates_s))
        spent.append(Spent("idle", "workers without a trial, or with one that was interrupted", idle_s))
    return [s for s in spent if s.seconds > 0]


def cost_report(results: StudyRecord) -> str:
    """Returns one sentence on where the time went; empty if no account was kept.

    The shares are of the time of all workers, since while the search runs each of them could compute.
    """
    totals = steps(results)
    groups = _grouped(totals, results.config)
    groups |= {s.name.replace("_", "-"): s.seconds for s in phases(results)}
    whole_s = sum(groups.values())
    if not results.phases or whole_s <= 0:
        return ""
    largest = sorted(((s, name) for name, s in groups.items() if s >= 0.005 * whole_s), reverse=True)
    parts = [f"{name} {100 * s / whole_s:.0f} %" for s, name in largest]
    return f"time: {numbers.duration(whole_s)} of all workers together: {', '.join(parts)}"


def _grouped(totals: Mapping[str, float], config: Mapping[str, object]) -> dict[str, float]:
    """Returns the seconds of the steps by what they are for."""
    stages = config.get("stage")
    building = {*_BUILDING, *(stages if isinstance(stages, Mapping) else ())}
    groups: dict[str, float] = defaultdict(float)
    for step, seconds in totals.items():
        if step in ("propose", "prepare"):
            groups["choosing candidates"] += seconds
        elif step in LOW_FIDELITY:
            groups["low-fidelity evaluations"] += seconds
        elif step == "waiting":
            groups["waiting for the machine"] += seconds
        elif step in building:
            groups[f"building ({step})"] += seconds
        elif step in _TIMING:
            groups["timing"] += seconds
        elif step == "other":
            groups["other"] += seconds
        else:
            groups["evaluating"] += seconds
    return dict(groups)

"""Which constraints were broken, how often and by how much; which trials failed, and why."""

import re
from collections import defaultdict
from dataclasses import dataclass

from search.record.results import Constraint, StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import constraint_text, label, unit_of


@dataclass(frozen=True)
class Miss:
    """The trials that broke one constraint.

    Attributes:
        constraint: The constraint.
        excess: Trial number to how far its value is beyond the limit, in the column's unit, above 0; of pruned
            trials their estimate.
        absent: Numbers of infeasible trials that lack the column.
    """

    constraint: Constraint
    excess: dict[int, float]
    absent: tuple[int, ...] = ()

    @property
    def nearest(self) -> int:
        """Number of the trial with the smallest excess."""
        return min(self.excess, key=lambda n: self.excess[n])

    def sentence(self, results: StudyRecord) -> str:
        """Returns a sentence on how many trials broke the constraint, and on the nearest miss."""
        unit = unit_of(results, self.constraint.column)
        least = numbers.quantity(self.excess[self.nearest], "pp" if unit == "%" else unit)
        name = label(self.constraint.column, with_device=True)
        because = results.trial(self.nearest).details.get("because", {}).get(self.constraint.column)
        return (
            f"{numbers.counted(len(self.excess), 'trial')} broke the limit on {name} "
            f"({constraint_text(results, self.constraint)}); the nearest, trial {self.nearest}, missed it by {least}"
            + (f" ({because})." if because else ".")
        )


def misses(results: StudyRecord) -> list[Miss]:
    """Returns the constraints that infeasible trials broke or pruned ones would break, most broken first."""
    broken = []
    rejected = [t for t in results.trials if t.state == "infeasible"]
    for constraint in results.constraints:
        values = {t.number: t.values().get(constraint.column) for t in rejected}
        over = {n: e for n, v in values.items() if v is not None and (e := constraint.excess(v)) > 0}
        over |= _estimated_excesses(results, constraint)
        if over:
            absent = tuple(n for n, v in values.items() if v is None)
            broken.append(Miss(constraint, over, absent))
    return sorted(broken, key=lambda m: -len(m.excess))


def _estimated_excesses(results: StudyRecord, constraint: Constraint) -> dict[int, float]:
    """Returns the estimated excess of pruned trials, by number: those that were stopped for it, or whose 95 % interval is beyond it."""
    excesses = {}
    for record in results.trials:
        estimate = record.estimate(constraint.column) if record.state == "pruned" else None
        if estimate is None:
            continue
        excess, error = constraint.excess(estimate[0]), estimate[1]
        if excess > 1.96 * error or (excess > 0 and record.reason.endswith(constraint.demand)):
            excesses[record.number] = excess
    return excesses


def nearest_miss(results: StudyRecord) -> tuple[TrialRecord, list[Constraint]] | None:
    """Returns the infeasible trial whose largest relative excess is smallest, and what it broke."""
    ranked = []
    for record in results.trials:
        values = record.values()
        broken = [c for c in results.constraints if c.column in values and c.excess(values[c.column]) > 0]
        if record.state == "infeasible" and broken:
            worst = max(c.excess(values[c.column]) / (abs(c.limit) or 1.0) for c in broken)
            ranked.append((worst, record.number, broken))
    if not ranked:
        return None
    _, number, broken = min(ranked, key=lambda r: r[:2])
    return results.trial(number), broken


def failures(results: StudyRecord) -> list[tuple[str, list[TrialRecord]]]:
    """Groups failed and pruned trials by reason (numbers aside), the largest group first."""
    groups: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in results.trials:
        if record.state in ("failed", "pruned"):
            first_line = record.reason.strip().partition("\n")[0] or "no reason was given"
            groups[record.state, re.sub(r"\d+(\.\d+)?", "#", first_line)].append(record)
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [(state, records) for (state, _), records in ranked]

"""Which constraints were broken, how often and by how much; which trials failed, and of what."""

import re
from collections import defaultdict
from dataclasses import dataclass

from search.record.results import Constraint, Results, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import constraint_text, label, unit_of


@dataclass(frozen=True)
class Miss:
    """How often one constraint was broken, and by how much (in the column's unit).

    Attributes:
        constraint: What had to hold.
        excess: Trial number to how far it is beyond the limit, of a pruned trial by what was estimated; all are above zero.
        absent: Trials that lack the column.
    """

    constraint: Constraint
    excess: dict[int, float]
    absent: tuple[int, ...] = ()

    @property
    def nearest(self) -> int:
        """The trial that broke it by least."""
        return min(self.excess, key=lambda n: self.excess[n])

    def sentence(self, results: Results) -> str:
        """Says which constraint failed how often, and the nearest miss."""
        unit = unit_of(results, self.constraint.column)
        least = numbers.quantity(self.excess[self.nearest], "pp" if unit == "%" else unit)
        name = label(self.constraint.column, with_device=True)
        because = results.trial(self.nearest).details.get("because", {}).get(self.constraint.column)
        return (
            f"{numbers.counted(len(self.excess), 'trial')} broke the limit on {name} "
            f"({constraint_text(results, self.constraint)}); the nearest, trial {self.nearest}, missed it by {least}"
            + (f" ({because})." if because else ".")
        )


def misses(results: Results) -> list[Miss]:
    """Returns the constraints that infeasible trials broke, and pruned ones would have: the one that failed most first."""
    found = []
    rejected = [t for t in results.trials if t.state == "infeasible"]
    for constraint in results.constraints:
        values = {t.number: t.values().get(constraint.column) for t in rejected}
        over = {n: e for n, v in values.items() if v is not None and (e := constraint.excess(v)) > 0}
        over |= _estimated_excesses(results, constraint)
        if over:
            absent = tuple(n for n, v in values.items() if v is None)
            found.append(Miss(constraint, over, absent))
    return sorted(found, key=lambda m: -len(m.excess))


def _estimated_excesses(results: Results, constraint: Constraint) -> dict[int, float]:
    """Pruned trials whose 95 % interval lies beyond the limit."""
    found = {}
    for record in results.trials:
        guess = record.estimate(constraint.column) if record.state == "pruned" else None
        if guess is not None and constraint.excess(guess[0]) > 1.96 * guess[1]:
            found[record.number] = constraint.excess(guess[0])
    return found


def nearest_miss(results: Results) -> tuple[TrialRecord, list[Constraint]] | None:
    """Returns the infeasible trial whose worst relative excess is least, with what it broke."""
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


def failures(results: Results) -> list[tuple[str, list[TrialRecord]]]:
    """Groups failed and pruned trials by reason (numbers aside), the largest group first."""
    groups: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in results.trials:
        if record.state in ("failed", "pruned"):
            first_line = record.reason.strip().partition("\n")[0] or "no reason was given"
            groups[record.state, re.sub(r"\d+(\.\d+)?", "#", first_line)].append(record)
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [(state, records) for (state, _), records in ranked]

"""The section with the health checks: a status, what was found and the next step; what is in order is collapsed."""

from collections.abc import Sequence

from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.findings.health import Check, checks
from search.report.page.markup import Section, details, esc, table

_CLASSES = {"warning": "state infeasible", "unknown": "state pruned", "ok": "state complete"}


def section(results: StudyRecord) -> Section | None:
    """Returns the section, or None if no check applies."""
    found = checks(results)
    if not found:
        return None
    fine = [check for check in found if check.status == "ok"]
    doubtful = [check for check in found if check.status != "ok"]
    shown = _table(doubtful) if doubtful else "<p>Nothing was found that makes the advice doubtful.</p>"
    folded = details(f"{numbers.counted(len(fine), 'check')} in order", _table(fine)) if fine else ""
    return Section("health", "Health checks", "", shown + folded)


def _table(found: Sequence[Check]) -> str:
    rows = [[esc(c.name), _status(c), esc(c.text), esc(c.next_step) or "–"] for c in found]
    return table(["check", "status", "found", "next step"], rows, name="Health checks")


def _status(check: Check) -> str:
    return f'<strong class="{_CLASSES[check.status]}">{esc(check.status)}</strong>'

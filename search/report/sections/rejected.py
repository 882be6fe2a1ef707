"""The section on rejected trials, and why they were rejected."""

from statistics import median

from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.findings.figures import constraint_text, estimated, figure, headline_metric, label, unit_of
from search.report.findings.misses import failures, misses, nearest_miss
from search.report.page.markup import Section, details, esc, table, trial_link

_MOST_PRUNED = 8
_STATES = {
    "infeasible": "infeasible (evaluated, but a constraint is broken)",
    "failed": "failed (could not be built or evaluated)",
    "pruned": "pruned (stopped early: with high confidence not good enough)",
}
_PRUNED = (
    "Pruned trials were not evaluated on the whole validation split: a trial ends as soon as its candidate is, with "
    "high confidence, not good enough, and skips the evaluators that would follow. The metric is an estimate with its "
    "95 % interval."
)


def section(results: StudyRecord) -> Section | None:
    """Returns the section, or None if nothing was rejected."""
    states = results.states()
    if not states["infeasible"] + states["failed"] + states["pruned"]:
        return None
    body = (
        _constraints_html(results) + _failures_html(results) + _pruned_html(results) + _all_rejected(results)
    )
    lead = ", ".join(f"{states[s]} {_STATES[s]}" for s in _STATES if states[s])
    return Section(
        "rejected", "What was rejected, and why", f"Of {len(results.trials)} trials: {lead}.", body
    )


def _constraints_html(results: StudyRecord) -> str:
    rows = []
    for miss in misses(results):
        column = miss.constraint.column
        unit = "pp" if (unit := unit_of(results, column)) == "%" else unit
        over = [numbers.quantity(v, unit) for v in (min(miss.excess.values()), median(miss.excess.values()))]
        rows.append(
            [
                f"{esc(label(column, with_device=True))} <code>{esc(column)}</code>",
                esc(constraint_text(results, miss.constraint)),
                str(len(miss.excess)),
                f"{esc(over[0])} ({trial_link(miss.nearest)})",
                esc(over[1]),
                esc(numbers.quantity(max(miss.excess.values()), unit)),
            ]
        )
    if not rows:
        return ""
    heads = [
        "constraint",
        "limit",
        "trials that break it",
        "smallest excess",
        "median excess",
        "largest excess",
    ]
    return table(heads, rows, numeric=(2, 3, 4, 5)) + _nearest_html(results)


def _nearest_html(results: StudyRecord) -> str:
    nearest = nearest_miss(results)
    if nearest is None:
        return ""
    record, broken = nearest
    texts = []
    for constraint in broken:
        now = figure(record.measurements, constraint.column)
        name = label(constraint.column, with_device=True)
        texts.append(f"{name} is {now.text if now else '?'}, limit {constraint_text(results, constraint)}")
    return f"<p><strong>Nearest miss:</strong> {trial_link(record.number)}, whose {esc(numbers.listing(texts))}.</p>"


def _failures_html(results: StudyRecord) -> str:
    rows = []
    for state, records in failures(results):
        links = ", ".join(trial_link(r.number) for r in records[:8]) + (", …" if len(records) > 8 else "")
        reason = records[0].reason.strip().partition("\n")[0] or "no reason was given"
        if state == "failed":
            rows.append([esc(reason), str(len(records)), links])
    heads = ["reason (of the first trial)", "trials", "trial numbers"]
    return f"<h3>Failed</h3>{table(heads, rows, numeric=(1,))}" if rows else ""


def _pruned_html(results: StudyRecord) -> str:
    pruned = [t for t in results.trials if t.state == "pruned"]
    if not pruned:
        return ""
    metric = headline_metric(results) or ""
    rows = [
        [
            trial_link(t.number),
            f'<span data-sort="{t.n_partial}">{t.n_partial or "–"}</span>',
            esc(estimated(results, t, metric) or "–"),
            esc(t.reason),
        ]
        for t in pruned
    ]
    heads = ["trial", "examples", label(metric), "reason"]
    visible = table(heads, rows[:_MOST_PRUNED], numeric=(1, 2))
    more = rows[_MOST_PRUNED:]
    folded = details(f"{len(more)} more", table(heads, more, numeric=(1, 2))) if more else ""
    return f"<h3>Stopped early</h3><p>{esc(_PRUNED)}</p>{visible}{folded}"


def _all_rejected(results: StudyRecord) -> str:
    rejected = [t for t in results.trials if t.state != "complete"]
    if all(t.state == "pruned" for t in rejected):  # they are listed above
        return ""
    rows = [[trial_link(t.number), esc(t.state), esc(t.reason)] for t in rejected]
    return details(f"Every rejected trial ({len(rows)})", table(["trial", "state", "reason"], rows))

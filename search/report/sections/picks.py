"""The section with the pick for each device: the model to ship compared with the baseline."""

from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.findings.figures import Figure, label
from search.report.findings.summary import Row, comparison, knob_texts, split_knobs
from search.report.page.markup import Section, details, esc, source_tag, table, trial_link, two_lines


def section(results: StudyRecord) -> Section | None:
    """Returns a card per device, or one card for the best trial; None if no trial was feasible."""
    if results.best is None:
        return None
    cards = [_card(results, pick.number, pick.device, pick.why) for pick in results.picks]
    if not cards:
        cards = [_card(results, results.best, None, results.best_why)]
    elif results.best not in {p.number for p in results.picks} or len(results.picks) > 1:
        why = f": {esc(results.best_why)}" if results.best_why else ""
        cards.append(f"<p>Over all devices the pick is {trial_link(results.best)}{why}.</p>")
    lead = "The uncompressed model compared with the one to ship. " + _explanation(results)
    return Section("picks", "What to ship", lead, f'<div class="cards">{"".join(cards)}</div>')


def _explanation(results: StudyRecord) -> str:
    if any("_low" in m.name for m in results.baseline):
        return "Intervals are the evaluators' own; a change whose interval contains 0 is not significant."
    return ""


def _card(results: StudyRecord, number: int, device: str | None, why: str) -> str:
    title = f"{esc(device)}: {trial_link(number)}" if device else trial_link(number)
    model = results.model_path(number)
    link = (
        f'<a href="models/{esc(model.name)}"><code>models/{esc(model.name)}</code></a>'
        if model.exists()
        else ""
    )
    reason = f"<p>Why: {esc(why)}.</p>".replace("..", ".") if why else ""
    file = f"<p>Model: {link}</p>" if link else ""
    rows = [_cells(row) for row in comparison(results, number, device)]
    heads = ["", "baseline", f"trial {number}", "change"]
    figures = table(heads, rows, numeric=(1, 2, 3))
    return f"<article><h3>{title}</h3>{reason}{figures}{file}{_knobs(results, number)}</article>"


def _cells(row: Row) -> list[str]:
    limits = f'<br><span class="quiet">{esc(row.limits)}</span>' if row.limits else ""
    name = f'<span title="{esc(row.column)}">{esc(label(row.column))}</span>'
    return [name + limits, _cell(row.before), _cell(row.after), two_lines(row.difference)]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    interval = f'<br><span class="interval">{esc(figure.interval)}</span>' if figure.interval else ""
    return f"{esc(figure.text)}{interval}<br>{source_tag(figure.source)}"


def _knobs(results: StudyRecord, number: int) -> str:
    knobs = knob_texts(results.trial(number))
    ordered = [p for p in split_knobs(results, (number,))[1] if p in knobs]
    rows = [[f"<code>{esc(p)}</code>", f"<code>{esc(knobs[p])}</code>"] for p in ordered]
    return (
        details(f"Its {numbers.counted(len(rows), 'knob')}", table(["knob", "value"], rows)) if rows else ""
    )

"""The first section: a card for each device with the model to ship, its limits, its rivals, and how to use it."""

from search.record.results import BASELINE, StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.figures import Figure, figure
from search.report.findings.misses import nearest_miss
from search.report.findings.summary import Row, comparison, knob_texts, reason, split_knobs
from search.report.page.markup import Section, details, esc, source_tag, table, trial_link, two_lines
from search.report.sections.shipping.columns import key_columns, row_name
from search.report.sections.shipping.deploy import deploy, download
from search.report.sections.shipping.rivals import runner_up, why_not
from search.report.sections.shipping.targets import targets


def section(results: StudyRecord) -> Section | None:
    """Returns a card per device, or one for the best trial; if none was feasible, one for the nearest miss, if there is one."""
    if results.best is None:
        return _nearest(results)
    cards = [_card(results, pick.number, pick.device, pick.why, pick.caveat) for pick in results.picks]
    if not cards:
        cards = [_card(results, results.best, None, results.best_why, "")]
    elif results.best not in {p.number for p in results.picks} or len(results.picks) > 1:
        why = f": {esc(results.best_why)}" if results.best_why else ""
        cards.append(f'<p class="quiet">Over all devices the pick is {trial_link(results.best)}{why}.</p>')
    return Section("picks", "What to ship", "", f'<div class="cards">{"".join(cards)}</div>')


def _nearest(results: StudyRecord) -> Section | None:
    """Returns the infeasible trial that misses the limits by the least, beside the float model."""
    nearest = nearest_miss(results)
    if nearest is None:
        return None
    record, limits = nearest[0], targets(results, nearest[0], None)
    card = f"<article><h3>{trial_link(record.number)}</h3>{limits}{_figures(results, record, None, None)}</article>"
    return Section("picks", "The nearest miss", "", f'<div class="cards">{card}</div>')


def _card(results: StudyRecord, number: int, device: str | None, why: str, caveat: str) -> str:
    record, rival = results.trial(number), runner_up(results, number, device)
    title = f"{esc(device)}: {trial_link(number)}" if device else trial_link(number)
    described = str(((results.config.get("device") or {}).get(device) or {}).get("description") or "")
    about = f'<p class="quiet">{esc(described)}</p>' if described else ""
    return (
        f"<article><h3>{title}{download(results, number)}</h3>{about}{_reasons(results, record, rival, device, why, caveat)}"
        f"{targets(results, record, device)}{_figures(results, record, rival, device)}"
        f"{deploy(results, number, device)}{_more(results, number, device)}</article>"
    )


def _reasons(
    results: StudyRecord,
    record: TrialRecord,
    rival: TrialRecord | None,
    device: str | None,
    why: str,
    caveat: str,
) -> str:
    parts = []
    if why:
        parts.append(f"<strong>Why:</strong> {esc(reason(results, why).rstrip('.'))}.")
    if caveat:
        parts.append(esc(caveat))
    if rival is not None and (difference := why_not(results, record, rival, device)):
        parts.append(f"<strong>Why not the next,</strong> {trial_link(rival.number)}: {esc(difference)}.")
    return f"<p>{' '.join(parts)}</p>" if parts else ""


def _figures(results: StudyRecord, record: TrialRecord, rival: TrialRecord | None, device: str | None) -> str:
    """Returns the table of the figures that decide: of the float model, of the pick, and of the runner-up."""
    is_float = record.number == BASELINE  # it has one column
    by_column = {row.column: row for row in comparison(results, record.number, device)}
    rows = [
        [
            _name(results, row, with_device=device is None),
            *([] if is_float else [_cell(row.before)]),
            f"<strong>{_cell(row.after)}</strong>{'' if is_float else _change(row.difference)}",
            *([_cell(figure(rival.measurements, column))] if rival is not None else []),
        ]
        for column in key_columns(results, device)
        if (row := by_column.get(column)) is not None
    ]
    role = "pick" if record.state == "complete" else record.state
    heads = ["figure", *([] if is_float else ["float model"])]
    heads.append(f"{_title(record)}\n{role}" + ("" if is_float else ", and change from float"))
    heads += [f"{_title(rival)}\nnext"] if rival is not None else []
    return table(heads, rows, numeric=range(1, len(heads)), name=f"Figures on {device or 'all devices'}")


def _title(record: TrialRecord) -> str:
    return "float model" if record.number == BASELINE else f"trial {record.number}"


def _change(difference: str) -> str:
    whole = esc(difference).replace(", ", ",\N{NO-BREAK SPACE}")  # an interval stays on one line
    return f'<br><span class="interval change">{whole}</span>' if difference else ""


def _name(results: StudyRecord, row: Row, *, with_device: bool) -> str:
    name, split = row_name(results, row.column, with_device=with_device)
    known = row.after or row.before
    below = ", ".join(filter(None, [split, known.source if known is not None else ""]))
    return f'{esc(name)}<br><span class="interval">{esc(below)}</span>'


def _cell(now: Figure | None) -> str:
    return "–" if now is None else two_lines(now.full)


def _more(results: StudyRecord, number: int, device: str | None) -> str:
    """Returns all figures and the knobs, collapsed."""
    rows = [_cells(row) for row in comparison(results, number, device)]
    figures = table(
        ["figure", "float model", f"trial {number}", "change"], rows, numeric=(1, 2, 3), name="All figures"
    )
    return details(f"All {len(rows)} figures", figures) + _knobs(results, number)


def _cells(row: Row) -> list[str]:
    limits = f'<br><span class="quiet">{esc(row.limits)}</span>' if row.limits else ""
    return [
        f"<code>{esc(row.column)}</code>{limits}",
        _sourced(row.before),
        _sourced(row.after),
        two_lines(row.difference),
    ]


def _sourced(now: Figure | None) -> str:
    return "–" if now is None else f"{_cell(now)}<br>{source_tag(now.source)}"


def _knobs(results: StudyRecord, number: int) -> str:
    knobs = knob_texts(results.trial(number))
    ordered = [p for p in split_knobs(results, (number,))[1] if p in knobs]
    rows = [[f"<code>{esc(p)}</code>", f"<code>{esc(knobs[p])}</code>"] for p in ordered]
    return (
        details(f"Its {numbers.counted(len(rows), 'knob')}", table(["knob", "value"], rows, name="Knobs"))
        if rows
        else ""
    )

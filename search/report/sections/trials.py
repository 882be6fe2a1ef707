"""The section with the table of all trials, collapsed; points of the charts link to its rows."""

from search.record.results import StudyRecord, TrialRecord
from search.report.findings.figures import (
    columns,
    estimated,
    figure,
    headline_metric,
    on_test,
    sources_of,
    split_label,
)
from search.report.findings.summary import knob_texts, split_knobs
from search.report.page.markup import (
    Section,
    details,
    esc,
    knob_head,
    sortable,
    source_tag,
    table,
    trial_anchor,
)

_MOST_KNOBS = 40


def section(results: StudyRecord) -> Section | None:
    """Returns the section, or None if there is no trial yet."""
    if not results.trials:
        return None
    figure_columns = _figures(results)
    knobs, shared = split_knobs(results, tuple(t.number for t in results.trials))
    heads = [
        "trial",
        "state",
        *(_head(results, c) for c in figure_columns),
        *map(knob_head, knobs[:_MOST_KNOBS]),
    ]
    rows = [_row(results, t, figure_columns, knobs[:_MOST_KNOBS]) for t in results.trials]
    ids = [trial_anchor(t.number) for t in results.trials]
    body = table(
        heads, rows, numeric=range(2, 2 + len(figure_columns)), ids=ids, css="sortable", name="All trials"
    )
    same = [f"<li><code>{esc(k)}</code> = <code>{esc(v)}</code></li>" for k, v in shared.items()]
    note = f'<p>Equal in all trials:</p><ul class="inline">{"".join(same)}</ul>' if same else ""
    left_out = len(knobs) - _MOST_KNOBS
    n_figures = len(columns(results)) - len(figure_columns)
    note += (
        f"<p>{n_figures} more figures of each trial are in <code>trials.csv</code>.</p>"
        if n_figures > 0
        else ""
    )
    note += f"<p>{left_out} more knobs are in <code>trials.csv</code>.</p>" if left_out > 0 else ""
    folded = details(f"All {len(rows)} trials (a column head sorts them)", note + body, anchor="all-trials")
    return Section("trials", "All trials", "", folded)


def _figures(results: StudyRecord) -> tuple[str, ...]:
    """Returns the columns to show: objectives, what is limited, and the metric on the test split; all if there is no objective."""
    present = columns(results)
    metric = headline_metric(results)
    wanted = [o.column for o in results.objectives]
    wanted += [c.column for c in results.constraints if c.limit != 0]
    wanted += [on_test(metric)] if metric is not None else []
    measured = {c for t in results.trials for c in t.values()}
    return tuple(c for c in dict.fromkeys(wanted) if c in measured) or present


def _head(results: StudyRecord, column: str) -> str:
    sources = sources_of(results, column)
    return f"{split_label(results, column, with_device=True)}\n{sources[0] if len(sources) == 1 else ''}"


def _row(
    results: StudyRecord, record: TrialRecord, figure_columns: tuple[str, ...], knobs: list[str]
) -> list[str]:
    mark = "\u00a0★" if record.number in results.front else ""
    cells = [
        f'<span title="on the Pareto front">{record.number}{mark}</span>' if mark else str(record.number)
    ]
    cells.append(
        f'<span class="state {esc(record.state)}"{_titled(record.reason)}>{esc(record.state)}</span>'
    )
    for column in figure_columns:
        now = figure(record.measurements, column)
        tag = source_tag(now.source) if now and len(sources_of(results, column)) > 1 else ""
        estimate = f'<span class="quiet">{esc(estimated(results, record, column) or "–")}</span>'
        cells.append(f"{sortable(now.value, now.text)}{tag}" if now else estimate)
    values = knob_texts(record)
    return cells + [f"<code>{esc(values[k])}</code>" if k in values else "–" for k in knobs]


def _titled(reason: str) -> str:
    return f' title="{esc(reason)}"' if reason else ""

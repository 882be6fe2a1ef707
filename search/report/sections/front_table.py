"""The Pareto front as a table: figures first, then the knobs in which its trials differ."""

from collections.abc import Sequence

from search.record.results import BASELINE, StudyRecord, TrialRecord
from search.report.findings.figures import change, figure, headline_metric, sources_of, split_label
from search.report.findings.summary import knob_texts, split_knobs
from search.report.page.markup import esc, knob_head, source_tag, table, trial_link, two_lines

_MOST_KNOBS = 14


def front_table(results: StudyRecord) -> str:
    """Returns the front as a table: figures first, then the knobs in which its trials differ."""
    if not results.front:
        return ""
    columns = [o.column for o in results.objectives]
    differing, shared = split_knobs(results, results.front)
    metric = headline_metric(results)
    heads = [
        "trial",
        *(["change\nfrom float"] if metric else []),
        *(_head(results, c) for c in columns),
    ]
    heads += [knob_head(path) for path in differing[:_MOST_KNOBS]]
    rows = [_row(results, None, columns, differing, metric)] if results.baseline else []
    trials = [n for n in results.front if n != BASELINE]  # the float model has a row in any case
    rows += [_row(results, results.trial(n), columns, differing, metric) for n in trials]
    numeric = range(1, len(columns) + 1 + bool(metric))
    same = "".join(f"<li><code>{esc(k)}</code> = <code>{esc(v)}</code></li>" for k, v in shared.items())
    note = f'<p>Equal in all trials of the front:</p><ul class="inline">{same}</ul>' if same else ""
    picked = {results.best, *(p.number for p in results.picks)}
    float_css = "float pick" if BASELINE in picked else "float"
    row_css = [float_css] * bool(results.baseline) + ["pick" if n in picked else "" for n in trials]
    return (
        table(heads, rows, numeric=numeric, row_css=row_css, css="sortable", name="The Pareto front") + note
    )


def _head(results: StudyRecord, column: str) -> str:
    sources = sources_of(results, column)
    return f"{split_label(results, column, with_device=True)}\n{sources[0] if len(sources) == 1 else ''}"


def _row(
    results: StudyRecord,
    record: TrialRecord | None,
    columns: Sequence[str],
    differing: Sequence[str],
    metric: str | None,
) -> list[str]:
    measurements = record.measurements if record else results.baseline
    cells = [trial_link(record.number) if record else "float model"]
    if metric:
        changed = change(results, record, metric) if record else None
        cells.append(two_lines(changed.full) if changed else "–")
    for column in columns:
        now = figure(measurements, column)
        mixed = len(sources_of(results, column)) > 1
        tag = source_tag(now.source) if mixed and now is not None else ""
        cells.append(
            "–" if now is None else f'<span data-sort="{now.value:.6g}">{two_lines(now.full)}</span>{tag}'
        )
    knobs = knob_texts(record) if record else {}
    return cells + [f"<code>{esc(knobs[p])}</code>" if p in knobs else "–" for p in differing[:_MOST_KNOBS]]

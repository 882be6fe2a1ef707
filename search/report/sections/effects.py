"""Effects of single settings as tables: those that are clear, and the others collapsed."""

from collections.abc import Sequence

from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.findings.figures import label, unit_of
from search.report.findings.noise import noise
from search.report.findings.settings import Comparison, comparisons
from search.report.page.markup import details, esc, table

_EXPLANATION = (
    "Mean change of each objective from the compared value to this value, with a 95 % t interval. “Pairs” are trials "
    "that differ in this knob only; where there are none, group means are compared and other knobs differ as well "
    "(grey). A single pair has no interval. The intervals are not corrected for multiple comparisons: of twenty, one "
    "is expected to miss the true change. “Within noise” is a mean change of a metric that is smaller than its paired interval, or of a "
    "latency that is below 3 % or its interval."
)


def effects(results: StudyRecord) -> str:
    """Returns the comparisons as tables; empty if no knob took two values."""
    compared = comparisons(results)
    clear = [c for c in compared if any(d.is_clear for d in c.differences.values())]
    unclear = [c for c in compared if c not in clear]
    shown = _table(results, clear) if clear else ""
    rest = f"{numbers.counted(len(unclear), 'comparison')} of settings without a clear effect"
    folded = details(rest, _note(clear) + _table(results, unclear)) if unclear else ""
    heading = f"<h3>Effects of single settings</h3>{_note(())}" if clear else ""
    return heading + shown + folded


def _note(told: Sequence[Comparison]) -> str:
    """Returns what the tables show, unless another one has told it."""
    return "" if told else f'<p class="method">{esc(_EXPLANATION)}</p>'


def _table(results: StudyRecord, compared: Sequence[Comparison]) -> str:
    columns = list(compared[0].differences)
    heads = [
        "knob",
        "value",
        "compared with",
        "trials compared",
        *(label(c, with_device=True) for c in columns),
    ]
    rows = [_row(results, c, columns) for c in compared]
    return table(heads, rows, numeric=range(3, len(heads)), name="Effects of single settings")


def _row(results: StudyRecord, compared: Comparison, columns: Sequence[str]) -> list[str]:
    if compared.is_paired:
        over = numbers.counted(compared.counts[0], "pair")
    else:
        over = '<span class="quiet">{} and {} trials</span>'.format(*compared.counts)
    cells = [f"<code>{esc(v)}</code>" for v in (compared.knob, compared.value, compared.reference)]
    return [*cells, over, *(_cell(results, compared, c) for c in columns)]


def _cell(results: StudyRecord, compared: Comparison, column: str) -> str:
    unit, gap = unit_of(results, column), compared.differences[column]
    if 0 < abs(gap.mean) <= noise(results.trials, column):
        return '<span class="quiet">within noise</span>'
    text = esc(numbers.signed(gap.mean, unit))
    if gap.low is not None and gap.high is not None:
        mean, interval = numbers.with_bounds(gap.mean, gap.low, gap.high, unit, is_change=True)
        text = f'{esc(mean)}<br><span class="interval">{esc(interval)}</span>'
    return text if compared.is_paired else f'<span class="quiet">{text}</span>'

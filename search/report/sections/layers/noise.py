"""The SQNR of a model's layers, beside the runner-up's and the worst trial's."""

from collections.abc import Sequence

from search.record.results import StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.findings.layers import IDENTICAL_DB, KEYS, Advice, advice, key_of, layers, rivals, sqnr
from search.report.page.markup import details, esc, table, trial_link


def layer_findings(results: StudyRecord, record: TrialRecord) -> str:
    """Returns the layer with the most noise, what a better trial did there, and all layers beside those of other trials."""
    key = key_of(record)
    if key is None:
        reason = record.details.get("layers_absent_because")
        return f"<p>The layers could not be compared: {esc(reason.rstrip('.'))}.</p>" if reason else ""
    return _advice_html(results, record) + _table(record, rivals(results, record, key), key)


def _advice_html(results: StudyRecord, record: TrialRecord) -> str:
    weakest = advice(results, record)
    if weakest is None:
        return ""
    db, key = f"{weakest.sqnr_db:.1f} dB", KEYS[weakest.key]
    text = f"<strong>{esc(weakest.layer)}</strong> has the lowest {esc(key)}: {db}."
    return f'<p class="finding">{text} {_suggestion(weakest)}</p>'


def _suggestion(weakest: Advice) -> str:
    if weakest.better is None or weakest.better_db is None:
        return (
            "No trial of this study is clearly better at this layer: widen the space, so that the layer can have more "
            "bits or stay in float."
        )
    kept = ", where it keeps the layer in float" if weakest.better_keeps_float else ""
    changed = [
        f"<code>{esc(k)}</code> = <code>{esc(b)}</code>"
        for k, (_, b) in weakest.differing.items()
        if b is not None
    ]
    inactive = [f"<code>{esc(k)}</code> inactive" for k, (_, b) in weakest.differing.items() if b is None]
    changes = numbers.listing([*changed, *inactive][:6]) or "no knob"
    return (
        f"{trial_link(weakest.better.number)} reaches {weakest.better_db:.1f} dB there{kept}; it differs in "
        f"{changes}. Try these values for this layer alone, if the space allows that."
    )


def _table(record: TrialRecord, others: Sequence[tuple[str, TrialRecord]], key: str) -> str:
    """Returns every layer of a trial, collapsed, beside the same layers of the runner-up and of the worst trial."""
    entries = layers(record)
    scalars = [k for k in dict.fromkeys(k for e in entries for k in e) if k != "layer"]
    columns = [k for k in scalars if any(isinstance(e.get(k), int | float | str) for e in entries)]
    theirs = [sqnr(other, key) for _, other in others]
    rows = [
        [
            f"<code>{esc(e['layer'])}</code>",
            *(_cell(e.get(k)) for k in columns),
            *(_cell(by_layer.get(str(e["layer"]))) for by_layer in theirs),
        ]
        for e in entries
    ]
    heads = [
        "layer",
        *(KEYS.get(k, k.replace("_", " ")) + ("\ndB" if k.endswith("_db") else "") for k in columns),
        *(f"{KEYS[key]}\ntrial {other.number}, {role}" for role, other in others),
    ]
    note = "<p>Signal-to-quantization-noise ratio (SQNR) against the float model: 6 dB less is twice the error amplitude.</p>"
    body = table(heads, rows, numeric=range(1, len(heads)), name=f"Layers of trial {record.number}")
    return details(f"Noise of every layer of trial {record.number}", note + body)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "equal" if value >= IDENTICAL_DB else esc(f"{value:.1f}")
    return esc(value)

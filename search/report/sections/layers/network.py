"""The section on the network: the layers of the models to ship as a picture, what was cut from them, and trainings."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.record.results import DevicePick, StudyRecord, TrialRecord
from search.report.findings import numbers
from search.report.page.markup import Section, details, esc, table, trial_link
from search.report.sections.layers.hardware import device_costs, hardware
from search.report.sections.layers.noise import layer_findings
from search.report.sections.layers.picture import picture
from search.report.sections.layers.training import training_curves

_MOST_DEVICES = 6
_COUNTS = {
    "macs": "multiply-accumulates",
    "parameters": "parameters",
    "weight_bytes": "bytes of weights in float",
}
_LEAD = (
    "The models to ship, layer by layer in the order of execution. A kernel is what the runtime executes at once: a layer with its "
    "activation, bias and rescaling."
)


def section(results: StudyRecord) -> Section | None:
    """Returns the section, or None if nothing is known of the layers."""
    parts = [_device(results, pick) for pick in results.picks[:_MOST_DEVICES]]
    if results.best is not None and results.best not in {pick.number for pick in results.picks}:
        best = results.trial(results.best)
        parts.append(_layers(results, best, picture(best, cut=(notes_of(best) or {}).get("widths", {}))))
    parts = [part for part in parts if part]
    left_out = [pick.device for pick in results.picks[_MOST_DEVICES:]]
    if left_out and parts:
        parts.append(f"<p>Devices that are not drawn: {esc(numbers.listing(left_out))}.</p>")
    lead = _LEAD if parts else ""
    parts += filter(None, [training_curves(results)])
    return Section("network", "The network", lead, "".join(parts)) if parts else None


def _device(results: StudyRecord, pick: DevicePick) -> str:
    """Returns a pick's layers and what it needs on its device; what other devices share is told with the first of them."""
    record, costs = results.trial(pick.number), device_costs(results, pick)
    first = next(p for p in results.picks if p.number == pick.number)
    drawn = picture(record, costs, cut=(notes_of(record) or {}).get("widths", {}))
    if costs is None:
        return _layers(results, record, drawn) if first is pick else ""
    heading = f"<h3>{esc(pick.device)}: {trial_link(pick.number)}</h3>"
    return f"{heading}{_cut(record)}{drawn}{hardware(costs)}" + (
        layer_findings(results, record) if first is pick else ""
    )


def _layers(results: StudyRecord, record: TrialRecord, drawn: str) -> str:
    body = _cut(record) + drawn + layer_findings(results, record)
    return f"<h3>{trial_link(record.number)}</h3>{body}" if body else ""


def notes_of(record: TrialRecord) -> Mapping[str, Any] | None:
    """Returns the notes of the stage that pruned the network (sizes, widths); None if none did."""
    stages = record.details.get("stages", {})
    return next(
        (notes for notes in stages.values() if isinstance(notes, Mapping) and "widths" in notes), None
    )


def _cut(record: TrialRecord) -> str:
    notes = notes_of(record)
    if notes is None:
        return ""
    widths = {layer: (int(before), int(after)) for layer, (before, after) in notes["widths"].items()}
    narrower = {layer: pair for layer, pair in widths.items() if pair[0] != pair[1]}
    counts = [_count(notes, key, name) for key, name in _COUNTS.items()]
    finding = f"{trial_link(record.number)} keeps {numbers.listing([text for text in counts if text])}."
    blocks = [f"<code>{esc(block)}</code>" for block in notes.get("blocks", ())]
    if blocks:
        finding += f" Blocks removed: {numbers.listing(blocks)}."
    if missed := notes.get("missed"):
        finding += f" {esc(str(missed))}."
    if not narrower:
        return f'<p class="finding">{finding}</p>'
    rows = [
        [f"<code>{esc(layer)}</code>", str(before), str(after), f"{100 * after / before:.0f} %"]
        for layer, (before, after) in widths.items()
    ]
    body = table(
        ["layer", "channels before", "after", "kept"], rows, numeric=(1, 2, 3), name="Channels"
    ) + _left_alone(notes)
    summary = f"Every layer of trial {record.number}: {len(narrower)} of {len(widths)} are narrower"
    return f'<p class="finding">{finding}</p>{details(summary, body)}'


def _count(notes: Mapping[str, Any], key: str, name: str) -> str:
    before, after = notes.get(f"{key}_before"), notes.get(f"{key}_after")
    if not before or after is None:
        return ""
    return f"{100 * after / before:.1f} % of {before:,} {name}"


def _left_alone(notes: Mapping[str, Any]) -> str:
    left_alone: Sequence[str] = notes.get("left_alone", ())
    if not left_alone:
        return ""
    return f"<p>Not pruned: {esc('; '.join(map(str, left_alone)))}.</p>"

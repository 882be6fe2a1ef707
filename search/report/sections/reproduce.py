"""The section with the command, environment, notes, duplicate proposals and resolved config of the study."""

import json

from search.record.redact import redact, redact_text
from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.page.markup import Section, details, esc, table, trial_link
from spaces.candidate import value_text


def section(results: StudyRecord) -> Section:
    """Returns the section."""
    command = (
        f'<div class="command"><pre id="command">{esc(redact_text(results.command))}</pre>'
        '<button type="button" data-copy="command">Copy</button></div>'
    )
    return Section(
        "reproduce",
        "How to reproduce it",
        "",
        command + _notes(results) + _aliases(results) + _metadata(results),
    )


def _notes(results: StudyRecord) -> str:
    if not results.notes:
        return ""
    return f"<h3>Notes</h3><ul>{''.join(f'<li>{esc(note)}</li>' for note in results.notes)}</ul>"


def _aliases(results: StudyRecord) -> str:
    if not results.aliases:
        return ""
    rows = []
    for alias in results.aliases:
        knobs = ", ".join(f"<code>{esc(k)}={esc(value_text(v))}</code>" for k, v in alias.candidate.items())
        rows.append([trial_link(alias.same_as), knobs])
    title = f"{numbers.counted(len(rows), 'duplicate proposal')} (with the same file as an earlier trial)"
    return details(title, table(["same file as", "proposal"], rows))


def _metadata(results: StudyRecord) -> str:
    metadata = {"sampler": results.sampler, "folder": str(results.folder), **results.environment}
    rows = [[esc(k), f"<code>{esc(v)}</code>"] for k, v in metadata.items()]
    knobs = [
        [
            f"<code>{esc(path)}</code>",
            ", ".join(f"<code>{esc(value_text(v))}</code>" for v in values) or "continuous",
        ]
        for path, values in results.knobs.items()
    ]
    config = json.dumps(redact(dict(results.config)), indent=2, ensure_ascii=False, default=str)
    return (
        details("Environment", table(["name", "value"], rows))
        + (
            details(f"The space: {numbers.counted(len(knobs), 'knob')}", table(["knob", "values"], knobs))
            if knobs
            else ""
        )
        + details("The resolved config", f'<pre tabindex="0">{esc(config)}</pre>')
    )

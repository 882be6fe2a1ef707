"""The report: one self-contained HTML page that can be read without any other output of the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.findings.summary import answers
from search.report.page.markup import Charts, Section, esc, script_json
from search.report.page.script import SCRIPT
from search.report.page.style import STYLE
from search.report.sections import (
    allocation,
    front,
    hardware,
    importance,
    network,
    picks,
    progress,
    rejected,
    reproduce,
    trials,
    why,
)
from spaces.stages.cache import write_atomic


def write_report(results: StudyRecord, path: Path) -> None:
    """Writes the report atomically; the page loads no other resource and is about 5 MB (Plotly's script).

    Args:
        results: The study at any moment, even without trials.
        path: The HTML file.
    """
    write_atomic(path, report_html(results).encode())


def report_html(results: StudyRecord) -> str:
    """Returns the page."""
    charts = Charts()
    candidates = [
        picks.section(results),
        front.section(results, charts),
        allocation.section(results),
        importance.section(results, charts),
        rejected.section(results),
        why.section(results, charts),
        network.section(results, charts),
        hardware.section(results, charts),
        progress.section(results, charts),
        trials.section(results),
        reproduce.section(results),
    ]
    sections = [s for s in candidates if s is not None]
    css = "answer" if results.best is not None else "answer none"
    return page(results.name, "Paredown study", answers(results), sections, charts, _metadata(results), css)


def page(
    title: str,
    eyebrow: str,
    sentences: Sequence[str],
    sections: Sequence[Section],
    charts: Charts,
    metadata: Mapping[str, str] = MappingProxyType({}),
    css: str = "answer",
) -> str:
    """Returns a whole page as HTML.

    Args:
        title: Heading, plain text.
        eyebrow: What the page is, above the heading.
        sentences: The answer, below the heading, plain text.
        sections: The sections.
        charts: The charts in them.
        metadata: Numbers in a strip below the answer, by their names.
        css: CSS class of the sentences.
    """
    answer = "".join(f'<p class="{css}">{esc(text)}</p>' for text in sentences)
    facts = "".join(f"<div><dt>{esc(k)}</dt><dd>{esc(v)}</dd></div>" for k, v in metadata.items())
    strip = f'<dl class="strip">{facts}</dl>' if facts else ""
    links = "".join(f'<a href="#{esc(s.anchor)}">{esc(s.title)}</a>' for s in sections)
    return _PAGE.format(
        title=esc(title),
        style=STYLE,
        header=f'<header><p class="eyebrow">{esc(eyebrow)}</p><h1>{esc(title)}</h1>{answer}{strip}'
        f'<nav aria-label="Sections">{links}</nav></header>',
        sections="".join(s.html() for s in sections),
        scripts=_scripts(charts),
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data: blob:">
<title>{title} · Paredown</title>
<style>{style}</style>
</head>
<body>
{header}
<main>{sections}</main>
<footer>Written by Paredown. <em>measured</em>: on the hardware that is named; <em>modelled</em>: computed by \
Paredown; <em>estimated</em>: by a third-party tool. A number in a \
sentence without one of these words is measured. Sizes: 1 KiB = 1024 bytes.</footer>
{scripts}
</body>
</html>
"""


def _metadata(results: StudyRecord) -> dict[str, str]:
    metadata = {state: str(n) for state, n in results.states().items() if n or state == "complete"}
    if results.aliases:
        metadata["duplicate proposals"] = str(len(results.aliases))
    metadata["on the Pareto front"] = str(len(results.front))
    metadata["sampler"] = results.sampler
    metadata["time"] = numbers.duration(results.wall_s)
    if results.hypervolume is not None and len(results.objectives) > 1:
        metadata["hypervolume"] = numbers.plain(results.hypervolume)
    return metadata


def _scripts(charts: Charts) -> str:
    data = f'<script type="application/json" id="charts">{script_json(charts.specs)}</script>'
    if not charts.specs:
        return f"{data}<script>{SCRIPT}</script>"
    from plotly.offline import get_plotlyjs

    return f"{data}<script>{get_plotlyjs()}</script><script>{SCRIPT}</script>"

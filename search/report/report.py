"""The report: one self-contained HTML page that can be read without any other output of the study."""

from collections.abc import Sequence
from pathlib import Path

from search.record.results import StudyRecord
from search.report.findings import numbers
from search.report.findings.summary import answers, states_text
from search.report.page.markup import Section, esc
from search.report.page.script import SCRIPT
from search.report.page.style import STYLE
from search.report.sections import (
    allocation,
    front,
    health,
    importance,
    progress,
    rejected,
    reproduce,
    trials,
)
from search.report.sections.layers import network
from search.report.sections.shipping import cards
from spaces.stages.cache import write_atomic


def write_report(results: StudyRecord, path: Path) -> None:
    """Writes the report atomically; the page loads no other resource.

    Args:
        results: The study at any moment, even without trials.
        path: The HTML file.
    """
    write_atomic(path, report_html(results).encode())


def report_html(results: StudyRecord) -> str:
    """Returns the page; sections with nothing to say are left out."""
    candidates = [
        cards.section(results),
        health.section(results),
        front.section(results),
        rejected.section(results),
        importance.section(results),
        network.section(results),
        allocation.section(results),
        progress.section(results),
        trials.section(results),
        reproduce.section(results),
    ]
    sections = [s for s in candidates if s is not None]
    css = "answer" if results.best is not None else "answer none"
    return page(results.name, "Paredown study", answers(results), sections, _facts(results), css)


def page(
    title: str,
    eyebrow: str,
    sentences: Sequence[str],
    sections: Sequence[Section],
    facts: Sequence[str] = (),
    css: str = "answer",
) -> str:
    """Returns a whole page as HTML.

    Args:
        title: Heading, plain text.
        eyebrow: What the page is, above the heading.
        sentences: The answer, below the heading, plain text.
        sections: The sections.
        facts: Short texts in a line below the answer.
        css: CSS class of the sentences.
    """
    answer = "".join(f'<p class="{css}">{esc(text)}</p>' for text in sentences)
    line = "".join(f"<span>{esc(fact)}</span>" for fact in facts)
    links = "".join(f'<a href="#{esc(s.anchor)}">{esc(s.title)}</a>' for s in sections)
    return _PAGE.format(
        title=esc(title),
        style=STYLE,
        header=f'<header><p class="eyebrow">{esc(eyebrow)}</p><h1>{esc(title)}</h1>{answer}'
        + (f'<p class="facts">{line}</p>' if line else "")
        + f'<nav aria-label="Sections">{links}</nav></header>',
        sections="".join(s.html() for s in sections),
        script=SCRIPT,
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
<script>{script}</script>
</body>
</html>
"""


def _facts(results: StudyRecord) -> list[str]:
    facts = [states_text(results), f"{len(results.front)} on the Pareto front", f"sampler {results.sampler}"]
    return [*facts, numbers.duration(results.wall_s)]

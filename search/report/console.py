"""A console that shows text of files as text: no control characters, no escape sequences, no markup."""

import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, those that reverse the direction of writing, and lone surrogates."""


def plain(text: str) -> str:
    """Returns the text without characters that a terminal would obey rather than show."""
    return _CONTROL.sub("", text)


class PlainConsole(Console):
    """A rich console for texts that may come from elsewhere: a study's folder, a config, a server.

    What rich itself sends to the terminal, colours and cursor movements, is kept. A file and a pipe get none, even if FORCE_COLOR is set,
    as it is in notebooks and on build servers: rich would draw a progress bar there, line by line.
    """

    def __init__(self, **settings: Any) -> None:
        stream = settings.get("file") or (sys.stderr if settings.get("stderr") else sys.stdout)
        terminal = {} if stream.isatty() else {"force_terminal": False}
        super().__init__(**{"highlight": False, "markup": False, **terminal, **settings})

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(s if s.control else Segment(plain(s.text), s.style) for s in buffer)

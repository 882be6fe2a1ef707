import io

import pytest
from rich.console import Group
from rich.table import Table
from rich.text import Text

from search.cli.device_tables import sheet
from search.planning.config.device_files import Catalogue
from search.report.console import PlainConsole, plain
from search.report.terminal import closing_table
from search.report.testing import hostile_results, hostile_text


def printed(*things, terminal=False):
    out = io.StringIO()
    PlainConsole(
        file=out, width=400, force_terminal=terminal, color_system="truecolor" if terminal else None
    ).print(*things)
    return out.getvalue()


HOSTILE = (
    "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1m\u202ereversed\r\x08 [link=http://x]here[/link] [/red] \ud800"
)


def test_texts_keep_their_letters_and_lose_what_a_terminal_obeys():
    assert plain("a\tb\nÄ漢😀") == "a\tb\nÄ漢😀"
    assert plain(HOSTILE) == "]0;title[2J[31mred1mreversed [link=http://x]here[/link] [/red] "


@pytest.mark.parametrize("terminal", [False, True])
def test_strings_texts_and_tables_are_printed_as_text(terminal):
    table = Table("head")
    table.add_row(HOSTILE)
    text = printed(HOSTILE, Text(HOSTILE), Group(Text(HOSTILE)), table, terminal=terminal)
    assert text.count("[31mred1mreversed") == 4
    assert text.count("[link=http://x]here[/link] [/red]") == 4
    for character in ("\x07", "\x08", "\x9b", "\r", "\u202e", "\x1b]", "\x1b[2J", "\x1b[31m"):
        assert character not in text


def test_colours_of_rich_are_kept_on_a_terminal():
    assert "\x1b[1;31m" in printed(Text("wrong", style="bold red"), terminal=True)


def test_the_table_at_the_end_obeys_nothing(tmp_path):
    text = printed(closing_table(hostile_results(tmp_path), 400))
    assert "[bold]" in text
    assert "\x1b" not in text
    assert hostile_text().count("\x1b") > 0


def test_the_sheet_of_a_device_obeys_nothing(device):
    text = printed(sheet(Catalogue({"x": device}, {"x": "f"}, {}, ()), "x", 100))
    assert "[bold]" in text
    assert "\x1b" not in text


@pytest.fixture
def device():
    from evaluators.devices.config import device_from_config

    return device_from_config(
        "x", {"description": hostile_text(), "runtime": "r", "macs_per_s": {"int8": 1e9}}, "device.x"
    )

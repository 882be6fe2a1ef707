"""What the command prints when something fails."""

import io
import logging
import sys

import pytest
from rich.console import Console

from search.cli import app


def test_no_error_is_printed_with_a_secret():
    text = io.StringIO()
    assert (
        app._print_error(Console(file=text, width=200), "cannot open postgresql://u:hunt/er2@h/d")
        == app.USAGE
    )
    assert text.getvalue() == "paredown: cannot open postgresql://***@h/d\n"


def test_no_traceback_has_a_secret_whatever_led_to_it(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    try:
        try:
            raise ValueError("postgresql://u:hunter2@h/d is no database")
        except ValueError as error:
            raise RuntimeError("password=hunter2") from error
    except RuntimeError:
        app._print_traceback(*sys.exc_info())
    assert "hunter2" not in text.getvalue().replace('raise ValueError("postgresql://u:hunter2@h/d', "")
    assert "RuntimeError: password=***" in text.getvalue()
    assert "ValueError: postgresql://***@h/d is no database" in text.getvalue()
    assert "direct cause" in text.getvalue()


def test_the_command_prints_tracebacks_and_warnings_so(monkeypatch):
    monkeypatch.setattr(app, "run_command", lambda arguments, began: 0)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    monkeypatch.setattr(logging, "lastResort", handler)
    with pytest.raises(SystemExit):
        app.main()
    assert sys.excepthook is app._print_traceback
    handler.handle(logging.makeLogRecord({"msg": "%s: 100%% away", "args": ("http://u:hunter2@h",)}))
    assert text.getvalue() == "http://***@h: 100% away\n"

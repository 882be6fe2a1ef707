"""What the command prints when something fails."""

import io
import json
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


@pytest.mark.parametrize("broken", ["report.cards.section", "terminal.answers", "terminal._table"])
def test_a_bug_after_the_search_is_one_message_and_the_study_s_own_status(
    tmp_path, monkeypatch, capsys, broken
):
    def bug(*arguments):
        raise KeyError("a bug")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"search.report.{broken}", bug)
    (tmp_path / "t.csv").write_text("task,knob.a,metric.top1\nt,1,90\nt,2,91\n")
    arguments = [
        "experiment=tabular",
        "tabular.path=t.csv",
        "tabular.stop_at_best=false",
        "sampler=brute_force",
        "study.n_trials=2",
        "study.name=s",
    ]
    assert app.run_command(arguments) == app.OK
    printed = capsys.readouterr()
    folder = tmp_path / "outputs" / "s"
    (failed,) = [line for line in printed.out.splitlines() if line.startswith("Could not make")]
    assert "(KeyError: 'a bug')" in failed
    assert "details are in outputs/s/errors.log" in failed
    assert "Traceback" not in printed.out + printed.err
    assert "in bug" in (folder / "errors.log").read_text()
    assert json.loads((folder / "summary.json").read_text())["n_trials"] == 2
    assert (folder / "pareto.csv").exists()
    assert (folder / "report.html").exists() == broken.startswith("terminal")
    assert "Reproduce: paredown" in printed.out

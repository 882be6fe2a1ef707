"""What is printed while a study runs: a bar that fits, or where there is no terminal, few lines and none twice."""

from collections import Counter
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from search.report.testing import fake_results
from search.study import progress
from search.study.progress import LiveProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def study_of(results, console, clock, step_s=5.0, failing=False):
    """Runs the trials of a study before an observer, one every few seconds."""
    plan = SimpleNamespace(n_trials=len(results.trials), notes=("a note",), learned=(), name="s", folder="f")
    observer = LiveProgress(console)
    observer.begin(replace(results, trials=()), plan)
    for at, record in enumerate(results.trials):
        clock.s += step_s
        told = replace(record, state="failed", reason="it broke") if failing else record
        observer.trial(told, replace(results, trials=results.trials[: at + 1], best=None))
    observer.end()


def test_without_a_terminal_lines_get_rarer_while_nothing_changes(tmp_path, clock):
    results = fake_results(tmp_path, 200)
    console = Console(file=StringIO(), width=140, force_terminal=False)
    study_of(results, console, clock)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "note: a note"
    counts = [line for line in lines if "/200 trials" in line]
    assert len(counts) < 10  # in 1000 s
    assert counts[-1].startswith("200/200 trials, ")
    assert max(Counter(lines).values()) == 1


def test_a_reason_of_failures_is_printed_once_and_counted(tmp_path, clock):
    results = fake_results(tmp_path, 12)
    console = Console(file=StringIO(), width=140, force_terminal=False)
    study_of(results, console, clock, failing=True)
    text = console.file.getvalue()
    assert text.count("it broke") == 2
    assert "12 trials failed: it broke" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_keeps_counts_and_times_within_the_width(tmp_path, clock, monkeypatch, width):
    results = fake_results(tmp_path, 24)
    console = Console(file=StringIO(), width=width, force_terminal=True)
    observer = LiveProgress(console)
    plan = SimpleNamespace(n_trials=24, notes=(), learned=(), name="s", folder="f")
    observer.begin(replace(results, trials=()), plan)
    observer.trial(results.trials[-1], results)
    shown = Console(file=StringIO(), width=width)
    shown.print(observer._bar)
    observer.end()
    (line,) = shown.file.getvalue().splitlines()
    assert len(line) <= width
    assert "24/24" in line
    assert "left" in line
    assert "…" not in line

"""trials.csv and aliases.csv grow by a line at a time, and are whole whenever they are read."""

import csv
import threading
from dataclasses import replace

import pandas as pd
import pytest

from search.record.storage import tables
from search.record.storage.tables import TrialTables
from search.study.study import run_study
from search.study.testing import AnalyticRunner, SilentObserver, analytic_plan


def run(folder, on_trial=None, **changes):
    return run_study(analytic_plan(folder, **changes), SilentObserver(on_trial)).results


@pytest.fixture
def rewritten(monkeypatch):
    """Names of the files that were rewritten."""
    names, write = [], tables.write_atomic
    monkeypatch.setattr(
        tables, "write_atomic", lambda path, *a, **k: (names.append(path.name), write(path, *a, **k))
    )
    return names


def test_files_are_rewritten_with_the_first_trial_and_at_the_end_only(tmp_path, rewritten):
    results = run(tmp_path, n_trials=20)
    assert len(results.trials) == 20
    assert results.aliases
    assert sorted(rewritten) == ["aliases.csv", "aliases.csv", "trials.csv", "trials.csv"]


def test_the_grown_files_are_those_that_are_rewritten(tmp_path):
    grown = {}

    def keep(record):
        for name in ("trials.csv", "aliases.csv"):
            grown[name] = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else b""

    run(tmp_path, n_trials=19)
    results = run(tmp_path, on_trial=keep, n_trials=20)
    assert grown["trials.csv"].count(b"\n") == 21  # before the trial is told
    table = pd.read_csv(tmp_path / "trials.csv", dtype=str)
    assert list(table["number"]) == [str(n) for n in range(20)]
    assert list(table["knob.x"]) == [str(t.candidate["x"]) for t in results.trials]
    assert len(pd.read_csv(tmp_path / "aliases.csv")) == len(results.aliases)


def test_a_new_column_is_in_all_rows(tmp_path, rewritten):
    """A trial that failed has no measurement; the first that succeeds adds their columns."""
    run(tmp_path, runner=AnalyticRunner(fail_at=8), n_trials=27)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert set(table["state"]) >= {"failed", "complete"}
    assert rewritten.count("trials.csv") <= 4
    assert table.loc[table["state"] != "failed", "metric.quality"].notna().all()


def test_a_torn_line_is_repaired_at_the_next_start(tmp_path):
    run(tmp_path, n_trials=6)
    whole = (tmp_path / "trials.csv").read_bytes()
    (tmp_path / "trials.csv").write_bytes(whole[:-9])
    (tmp_path / "aliases.csv").write_bytes(b"same_as,kno")
    run(tmp_path, n_trials=6)
    assert (tmp_path / "trials.csv").read_bytes() == whole


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("")])
def test_a_file_that_somebody_deletes_or_empties_is_whole_at_the_end(tmp_path, spoil):
    results = run(tmp_path, on_trial=lambda record: record.number == 3 and spoil(tmp_path / "trials.csv"))
    assert list(pd.read_csv(tmp_path / "trials.csv")["number"]) == [t.number for t in results.trials]


def test_whoever_reads_gets_whole_lines(tmp_path):
    ended, torn, n_reads = threading.Event(), [], 0

    def read():
        nonlocal n_reads
        while not ended.is_set():
            text = (tmp_path / "trials.csv").read_text() if (tmp_path / "trials.csv").exists() else "\n"
            lines = list(csv.reader(text.splitlines()))
            n_reads += 1
            if not text.endswith("\n") or len({len(line) for line in lines}) > 1:
                torn.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run(tmp_path, n_trials=27)
    finally:
        ended.set()
        reader.join()
    assert n_reads > 20
    assert not torn


def test_a_line_of_which_half_is_taken_is_written_again(tmp_path, monkeypatch):
    results = run(tmp_path, n_trials=4)
    grown = TrialTables(tmp_path)
    grown.rewrite(replace(results, trials=results.trials[:3]))
    write = tables.os.write
    monkeypatch.setattr(tables.os, "write", lambda file, data: write(file, data[:5]))
    grown.add(results)
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 4  # rewritten as a whole

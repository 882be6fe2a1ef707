"""The files of a study when the disk is full or the folder goes, and what spreadsheets make of them."""

import csv
import errno
import os

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.knowledge.study_files import read_study, trials_of
from search.record.storage import journal
from search.record.study_files import csv_text, errors_told, sweep
from search.record.values import cell_text, text_cell
from search.study.study import run_study
from search.study.testing import SilentObserver, analytic_plan
from spaces.errors import StudyError
from spaces.space_config import read_space


def run(folder, on_trial=None, **changes):
    return run_study(analytic_plan(folder, **changes), SilentObserver(on_trial)).results


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-x", "@sum(A1)", "\t=1", "\r=1", "'=1", "''-x", "-1_0"]
)
def test_a_formula_is_made_text_and_read_back(text):
    assert text_cell(text) == f"'{text}"
    assert cell_text(text_cell(text)) == text


@pytest.mark.parametrize(
    "text",
    ["-1", "-1.5e-07", "+3", "-inf", "nan", "1e5", "", "relu", "a=b", "'quoted'", "0.5", "-.5", "complete"],
)
def test_numbers_and_other_texts_stay(text):
    assert text_cell(text) == text == cell_text(text)


@given(st.text())
def test_any_cell_is_read_back(text):
    assert cell_text(text_cell(text)) == text
    assert not text_cell(text).startswith(("=", "@"))


def test_formulas_among_knobs_and_reasons_are_text_in_the_files_only(tmp_path):
    space = read_space({"x": [-3, 2], "y": [0, 1], "z": ["=1+1", "plain"]})
    results = run(tmp_path, space=space, n_trials=8)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert set(table["knob.z"]) <= {"'=1+1", "plain"}
    assert set(table["knob.x"]) <= {-3, 2}  # numbers
    assert {t.candidate["z"] for t in results.trials} <= {"=1+1", "plain"}
    assert {t.knobs["z"] for t in trials_of((tmp_path / "trials.csv").read_text()).values()} <= {
        "=1+1",
        "plain",
    }
    (tmp_path / "config.yaml").write_text("config: {}")
    assert read_study(tmp_path).trials


def test_cells_with_quotes_commas_and_newlines_are_whole():
    rows = list(csv.reader(csv_text(["a", "b"], [{"a": 'x"y,\n'}]).decode().splitlines(keepends=True)))
    assert rows == [["a", "b"], ['x"y,\n', ""]]


def test_temporary_files_of_a_killed_driver_are_swept(tmp_path):
    (tmp_path / "models").mkdir()
    left = [
        ".trials.csv.ab12_xyz",
        ".config.yaml.abcdefgh",
        "models/.trial_3.onnx.00000000",
        ".report.html.a1b2c3d4",
    ]
    kept = [
        ".lock",
        ".gitignore",
        ".mine.csv",
        "trials.csv",
        "models/trial_3.onnx",
        ".trials.csv.backup-of-mine",
    ]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in kept)
    (tmp_path / left[0]).touch()
    run(tmp_path, n_trials=1)
    assert not (tmp_path / left[0]).exists()


class FullDisk:
    """`os.write` on a disk that takes `n` more bytes, of which the last ones half a line."""

    def __init__(self, n):
        self.left = n

    def __call__(self, file, data, write=os.write):
        if self.left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(file, data[: self.left])
        self.left -= taken
        return taken


@pytest.mark.parametrize("n_bytes", [2000, 2013, 3001, 4007])
def test_a_full_disk_is_one_message_and_nothing_is_lost(tmp_path, monkeypatch, n_bytes):
    done = []
    monkeypatch.setattr(journal.os, "write", FullDisk(n_bytes))
    with pytest.raises(StudyError) as error:
        run(tmp_path, on_trial=done.append)
    monkeypatch.undo()
    assert "No space left on device" in str(error.value)
    assert "safe in study.journal" in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "study.journal").read_bytes().endswith(b"\n")
    trials = run(tmp_path).trials
    assert list(trials[: len(done)]) == done
    assert list(pd.read_csv(tmp_path / "trials.csv")["number"]) == list(range(12))


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/studies.db"])
def test_a_folder_that_is_removed_is_one_message(tmp_path, storage):
    folder = tmp_path / "study"

    def remove(record):
        if record.number == 3:
            folder.rename(tmp_path / "gone")

    storage = storage and storage.format(tmp_path)
    if storage is None:
        with pytest.raises(StudyError, match="was removed while its study ran") as error:
            run(folder, on_trial=remove)
        assert "\n" not in str(error.value)
        assert not folder.exists()
        (tmp_path / "gone").rename(folder)
    else:  # the trials are elsewhere: the files are made again
        run(folder, on_trial=remove, storage=storage)
    run(folder, storage=storage)
    assert list(pd.read_csv(folder / "trials.csv")["number"]) == list(range(12))


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), errors_told(tmp_path):
        (tmp_path.parent / "elsewhere").read_text()
    with pytest.raises(ConnectionResetError), errors_told(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(StudyError, match=r"cannot write the study in .*Read-only"), errors_told(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")

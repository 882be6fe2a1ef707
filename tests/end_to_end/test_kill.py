"""A study that is killed at any time and started again loses at most the running trial."""

import json
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest


@pytest.mark.slow
def test_ten_kills_and_sixty_distinct_trials(digits_onnx, cache_dir, tmp_path):
    command = [
        sys.executable, "-m", "search", "tracker=none", f"cache_dir={cache_dir}", "model=onnx",
        f"model.checkpoint={digits_onnx}", "study.n_trials=60", "study.name=killed", "evaluator=[accuracy,cost]",
        "objective=accuracy_size", "study.dir=study",
    ]  # fmt: skip
    rng = random.Random(0)
    folder, measured = tmp_path / "study", {}
    for _ in range(10):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        begun = _n_trials(folder)
        until = time.monotonic() + 120
        while _n_trials(folder) == begun and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        table = pd.read_csv(folder / "trials.csv")  # complete at any time
        for row in table.itertuples():
            # completed trials are never measured again: not even their times change
            assert measured.setdefault(row.number, row.wall_s) == row.wall_s
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["number"]) == list(range(60))
    assert not table.duplicated([c for c in table if c.startswith("knob.")]).any()
    for row in table.itertuples():
        assert measured.get(row.number, row.wall_s) == row.wall_s
    assert json.loads((folder / "summary.json").read_text())["n_trials"] == 60


def _n_trials(folder):
    path = folder / "trials.csv"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_is_exit_status_130(digits_onnx, cache_dir, tmp_path, interruptible):
    command = [
        sys.executable, "-m", "search", "tracker=none", f"cache_dir={cache_dir}", "model=onnx",
        f"model.checkpoint={digits_onnx}", "study.n_trials=200", "study.dir=study",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while _n_trials(tmp_path / "study") < 5 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    summary = json.loads((tmp_path / "study/summary.json").read_text())
    assert summary["n_trials"] == len(pd.read_csv(tmp_path / "study/trials.csv")) >= 4
    assert (tmp_path / "study/report.html").exists()

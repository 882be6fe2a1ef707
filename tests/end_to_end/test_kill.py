"""A study that is killed at any time and started again loses at most the running trial."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _processes_of(session):
    """Returns the processes of a session: a study that leads it, and its workers, which have groups of their own."""
    found = []
    for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        try:
            if os.getsid(pid) == session and _is_running(pid):
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "to_all", "executor", "kills"),
    [
        (signal.SIGKILL, False, ["executor=serial"], 20),
        (signal.SIGKILL, False, ["executor=processes", "executor.workers=2"], 6),
        (signal.SIGTERM, False, ["executor=serial"], 10),
        (signal.SIGTERM, True, ["executor=processes", "executor.workers=2"], 10),
    ],
)
def test_a_study_that_is_ended_again_and_again_has_each_trial_once(
    digits_onnx, cache_dir, tmp_path, number, to_all, executor, kills
):
    """By SIGKILL, as the system ends a process, and by SIGTERM, as a cluster ends a job (to all of its processes)."""
    command = [
        sys.executable, "-m", "search", "tracker=none", f"cache_dir={cache_dir}", "model=onnx", "sampler=random",
        f"model.checkpoint={digits_onnx}", "study.n_trials=40", "evaluator=[accuracy,cost]", "device=stm32h743",
        "objective=accuracy_size", "study.dir=study", "knowledge=none", *executor,
    ]  # fmt: skip
    rng, folder, measured, n_killed = random.Random(0), tmp_path / "study", {}, 0
    for _ in range(kills):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun, until = _n_trials(folder), time.monotonic() + 120
        while _n_trials(folder) == begun and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        for pid in _processes_of(process.pid) if to_all else [process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == (143 if number == signal.SIGTERM else -number), out
        assert "Traceback" not in out
        until = time.monotonic() + 10
        while _processes_of(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert not _processes_of(process.pid), "worker processes outlive their study"
        n_killed += 1
        table = pd.read_csv(folder / "trials.csv")
        assert "failed" not in set(table["state"])
        for row in table.itertuples():
            assert measured.setdefault(row.number, row.wall_s) == row.wall_s
        if number == signal.SIGTERM:
            summary = json.loads((folder / "summary.json").read_text())
            assert summary["ended"] == "interrupted by SIGTERM"
            assert summary["n_trials"] == len(table)
            assert "interrupted by SIGTERM" in (folder / "report.html").read_text()
    assert n_killed == kills
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["number"]) == list(range(40))
    assert not table.duplicated([c for c in table if c.startswith("knob.")]).any()
    assert "failed" not in set(table["state"])
    assert not list(folder.glob(".*.csv.*")), "a killed study's temporary files are left"


@pytest.mark.slow
@pytest.mark.parametrize("n_signals", [2, 4])
def test_signals_while_the_study_ends_leave_every_file_whole(
    digits_onnx, cache_dir, tmp_path, interruptible, n_signals
):
    command = [
        sys.executable, "-m", "search", "tracker=none", f"cache_dir={cache_dir}", "model=onnx",
        f"model.checkpoint={digits_onnx}", "study.n_trials=500", "study.dir=study", "knowledge=none",
        "evaluator=[accuracy,cost]", "objective=accuracy_size", "device=stm32h743", "sampler=random",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while _n_trials(tmp_path / "study") < 5 and time.monotonic() < until:
        time.sleep(0.05)
    for _ in range(n_signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), (
        err
    )  # the latter if all was written before the last one
    assert "Traceback" not in out + err
    summary = json.loads((tmp_path / "study/summary.json").read_text())
    assert summary["n_trials"] == len(pd.read_csv(tmp_path / "study/trials.csv")) >= 4
    assert summary["ended"] == "interrupted"
    assert len(pd.read_csv(tmp_path / "study/pareto.csv")) == len(summary["pareto"])


@pytest.mark.slow
def test_sigterm_ends_a_sweep(digits_onnx, cache_dir, tmp_path):
    command = [
        sys.executable, "-m", "search", "--multirun", "tracker=none", f"cache_dir={cache_dir}", "model=onnx",
        f"model.checkpoint={digits_onnx}", "study.n_trials=200", "seed=0,1", "knowledge=none", "study.report=false",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not list(tmp_path.glob("outputs/*/trials.csv")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Traceback" not in out + err
    assert len(list(tmp_path.glob("outputs/*/trials.csv"))) == 1, "the second study of the sweep was begun"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_sigterm_closes_the_runs_in_mlflow(digits_onnx, cache_dir, tmp_path):
    command = [
        sys.executable, "-m", "search", f"cache_dir={cache_dir}", "model=onnx", f"model.checkpoint={digits_onnx}",
        "knowledge=none", "evaluator=[accuracy,cost]", "sampler=random", "objective=accuracy_size", "device=stm32h743",
        "tracker.uri=sqlite:///mlflow.db",
    ]  # fmt: skip
    # makes the tables, which takes long
    first = ["study.n_trials=1", "tracker.experiment=first", "tracker.close_timeout_s=300"]
    subprocess.run([*command, *first], cwd=tmp_path, check=True)
    process = subprocess.Popen(
        [*command, "study.n_trials=500", "study.dir=study"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while _n_trials(tmp_path / "study") < 10 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in out + err
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("paredown").experiment_id], max_results=1000)
    assert [run.info.status for run in runs if "paredown.study" in run.data.tags] == ["KILLED"]
    numbers = sorted(
        int(run.data.tags["paredown.trial"]) for run in runs if "paredown.trial" in run.data.tags
    )
    assert numbers == list(range(len(pd.read_csv(tmp_path / "study/trials.csv"))))
    assert "RUNNING" not in {run.info.status for run in runs}

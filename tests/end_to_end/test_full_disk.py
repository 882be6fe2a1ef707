"""A study whose disk is full, by the command line."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 160 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_study_with_one_message_and_it_goes_on_later(small_disk, tmp_path):
    rows = "".join(f"t,{a},{b},{a * b % 17}\n" for a in range(20) for b in range(10))
    (tmp_path / "t.csv").write_text(f"task,knob.a,knob.b,metric.top1\n{rows}")
    command = [
        sys.executable, "-m", "search", "experiment=tabular", "tabular.path=t.csv", "tabular.stop_at_best=false",
        "sampler=random", f"study.dir={small_disk}/study", "study.report=false",
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "No space left on device" in ended.stderr
    assert "safe in study.journal" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    n_before = (small_disk / "study" / "study.journal").read_text().count('"record":')
    assert 20 < n_before < 200
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert f"{n_before} of " in ended.stdout
    table = pd.read_csv(small_disk / "study" / "trials.csv")
    assert list(table["number"]) == list(range(200))
    assert not table.duplicated(["knob.a", "knob.b"]).any()

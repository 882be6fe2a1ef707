"""A study on Ray that is preempted again and again ends with each trial once."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

N_TRIALS, N_PREEMPTIONS = (
    48,
    10,
)  # many more trials than preemptions: a busy machine records several before the signal
SPACE = [
    "space.quantize.calibration_images=[16,64]", "space.quantize.scheme=[asymmetric,symmetric]", "space.quantize.clipping=[max]",
    "~space.quantize.percentile", "space.quantize.granularity=channel", "space.quantize.mixed_precision=false",
    "space.quantize.weight_bits=[3,4,5,6,7,8]", "space.quantize.bias_correction=[false,true]",
    "space.quantize.cross_layer_equalization=false", "space.quantize.activation_type=unsigned", "space.quantize.weight_type=signed",
]  # fmt: skip


def n_recorded(folder):
    """Returns how many trials the table has; it is replaced as a whole."""
    path = folder / "trials.csv"
    return len(pd.read_csv(path)) if path.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_preemptions_lose_and_double_nothing(digits_onnx, cache_dir, tmp_path):
    """SIGTERM to the whole process group, as Slurm and Kubernetes send it; the local Ray is part of it."""
    command = [
        Path(sys.executable).parent / "paredown", "executor=ray", "executor.address=local", "executor.workers=2", "model=onnx",
        f"model.checkpoint={digits_onnx}", "sampler=brute_force", f"study.n_trials={N_TRIALS}", "study.name=preempted",
        "evaluator=[accuracy,cost]", "evaluator.accuracy.stop_early=false", "knowledge=none", "device=stm32h743", "tracker=none",
        "objective=accuracy_size", f"cache_dir={cache_dir}", *SPACE,
    ]  # fmt: skip
    folder = tmp_path / "outputs" / "preempted"
    statuses = []
    for _ in range(N_PREEMPTIONS):
        before = n_recorded(folder)
        with ended(command, tmp_path) as process:
            until = time.monotonic() + 120
            while n_recorded(folder) == before and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            assert process.poll() is None, (
                process.returncode,
                n_recorded(folder),
                (tmp_path / "out.log").read_text()[-3000:],
            )
            os.killpg(process.pid, signal.SIGTERM)
            statuses.append(process.wait(60))
    # 1: Ray itself ends a driver at once when it finds the Ray of its machine dead before our handler has run
    assert set(statuses) <= {-signal.SIGTERM, 128 + signal.SIGTERM, 1}
    assert statuses.count(1) < N_PREEMPTIONS / 2
    with ended(command, tmp_path) as process:
        assert process.wait(300) == 0, (tmp_path / "out.log").read_text()[-3000:]
    rows = pd.read_csv(folder / "trials.csv")
    knobs = [column for column in rows if column.startswith("knob.")]
    assert sorted(rows["number"]) == list(range(N_TRIALS))
    assert not rows.duplicated(knobs).any()
    assert set(rows["state"]) <= {"complete", "infeasible"}


@contextlib.contextmanager
def ended(command, folder):
    """Runs a command in a process group of its own, which ends with the context."""
    with (folder / "out.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"RAY_AUTH_MODE": "disabled"})  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

"""`experiment=mcu_har`: from sensor readings to an int8 file that fits a small microcontroller."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

from evaluators.cost.graph import op_graph
from evaluators.cost.memory import plan_memory
from spaces.stages.artifact import Artifact, InputSpec

DATA = Path(__file__).parents[2].parent / "shared/data/har/hapt_windows128.npz"
MOST_FLASH_BYTES, MOST_SRAM_BYTES = 64 * 1024, 16 * 1024
DEVICE = "stm32g0b1_hale"


def write_windows(path, n_people=8, n_windows=24):
    """Windows (n, 128, 6) of 6 activities that differ in frequency, of people who differ in how they carry the phone."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(n_people), n_windows)
    y = np.tile(np.arange(n_windows) % 6, n_people)
    time_s = np.arange(128)[None, :, None] / 50
    phase = rng.uniform(0, 6.28, (len(y), 1, 6))
    x = (
        np.sin(6.28 * (0.5 + y)[:, None, None] * time_s + phase)
        + rng.normal(0, 0.2, (n_people, 1, 6))[subject]
    )
    np.savez(path, x=x.astype(np.float16), y=y, subject=subject)
    return path


def shipped(folder):
    """Yields the files of the front, each with flash and peak SRAM in bytes from its memory plan."""
    for path in sorted((folder / "models").glob("trial_*.onnx")):
        artifact = Artifact.onnx(path.read_bytes(), InputSpec((6, 128)))
        plan = plan_memory(op_graph(artifact))
        yield path, plan.flash_bytes, plan.peak_sram_bytes


def check_study(folder):
    files = list(shipped(folder))
    assert files
    rows = pd.read_csv(folder / "trials.csv").set_index("number")
    for path, flash_bytes, sram_bytes in files:
        assert flash_bytes <= 0.8 * MOST_FLASH_BYTES
        assert sram_bytes <= 0.9 * MOST_SRAM_BYTES
        row = rows.loc[int(path.stem.removeprefix("trial_"))]
        assert row[f"cost.{DEVICE}.flash_bytes"] == flash_bytes
        assert row[f"cost.{DEVICE}.peak_sram_bytes"] == sram_bytes
        stored = {i.name: i.data_type for i in onnx.load(path).graph.initializer}
        weights = {name: kind for name, kind in stored.items() if name.endswith("weight_quantized")}
        assert len(weights) == 4
        assert set(weights.values()) <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert session.run(None, {"input": np.zeros((3, 6, 128), np.float32)})[0].shape == (3, 6)
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.slow
def test_small_windows_from_training_to_int8(paredown, tmp_path):
    data = write_windows(tmp_path / "windows.npz")
    ran = paredown(
        *("experiment=mcu_har", f"task.root={data}"),
        *("task.calibration=1", "task.validation=2", "task.test=2"),
        *("study.n_trials=2", "model.epochs=4", "sampler=random", "study.report=false", "knowledge=none"),
        "space.recover.epochs.choices=[1]",
    )
    assert ran.status == 0, ran.err
    summary = check_study(tmp_path / "outputs/mcu_har")
    # the uncompressed network is too large in 8 bits, too: one byte per weight
    assert summary["baseline"]["costs"][DEVICE]["flash_bytes"] / 4 > MOST_FLASH_BYTES


@pytest.mark.slow
def test_the_real_windows(paredown, tmp_path):
    if not DATA.is_file():
        pytest.skip("the human-activity windows are absent")
    ran = paredown("experiment=mcu_har", f"task.root={DATA}", "study.n_trials=8")
    assert ran.status == 0, ran.err
    summary = check_study(tmp_path / "outputs/mcu_har")
    assert summary["best"]["metrics"]["top1"] > 85

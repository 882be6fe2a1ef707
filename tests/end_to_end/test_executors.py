"""A candidate has the same measurements with every executor."""

import pandas as pd
import pytest

TIMED = ("seconds.", "wall_s", "cost.host.", "number")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_serial_processes_and_ray_agree(paredown, digits_onnx, small_space, tmp_path):
    tables = {}
    for executor in ("serial", "processes", "ray"):
        ran = paredown(
            "model=onnx", f"model.checkpoint={digits_onnx}", "sampler=brute_force", "study.n_trials=8",
            f"executor={executor}", f"study.name={executor}", "evaluator.accuracy.stop_early=false", "knowledge=none", *small_space,
        )  # fmt: skip
        assert ran.status == 0, ran.err
        table = pd.read_csv(tmp_path / f"outputs/{executor}/trials.csv")
        assert len(table) == 8
        knobs = [c for c in table if c.startswith("knob.")]
        kept = [
            c
            for c in table
            if not c.startswith(TIMED) and ".test_" not in c and c != "state" and c != "reason"
        ]
        tables[executor] = table[kept].sort_values(knobs).reset_index(drop=True)
    assert sum(c.startswith("metric.") for c in tables["serial"]) >= 5
    pd.testing.assert_frame_equal(tables["serial"], tables["processes"], check_like=True)
    pd.testing.assert_frame_equal(tables["serial"], tables["ray"], check_like=True)

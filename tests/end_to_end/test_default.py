"""The default study, with a small budget: all files that other tools read are written and consistent."""

import json

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import yaml

from evaluators.task.tasks.classification.digits import DigitsTask


@pytest.fixture
def study(paredown, digits_onnx, tmp_path):
    ran = paredown("model=onnx", f"model.checkpoint={digits_onnx}", "study.n_trials=4", "executor=worker")
    assert ran.status == 0, ran.err
    return ran, tmp_path / "outputs/digits"


def test_files_and_printed_text(study):
    ran, folder = study
    assert {p.name for p in folder.iterdir()} >= {
        "config.yaml", "trials.csv", "pareto.csv", "summary.json", "report.html", "models", "study.journal",
    }  # fmt: skip
    assert "Ship trial" in ran.out
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["config"]["study"]["n_trials"] == 4
    assert config["versions"]["onnxruntime"]
    first = pd.read_csv(folder / "trials.csv").iloc[0]  # the stage's defaults, if they are in the space
    assert (first["knob.quantize.granularity"], first["knob.quantize.clipping"]) == ("channel", "max")
    assert first["knob.quantize.weight_bits"] == 8
    assert config["digests"]["model"]["digest"]
    summary = json.loads((folder / "summary.json").read_text())
    front = pd.read_csv(folder / "pareto.csv", dtype={"number": str})  # the float model's is `baseline`
    assert list(front["number"]) == [str(n) for n in summary["pareto"]]
    assert sorted(p.name for p in (folder / "models").iterdir()) == sorted(
        f"trial_{n}.onnx" for n in summary["pareto"]
    )
    assert set(summary["devices"]) == {"host", "stm32h743"}
    assert summary["baseline"]["metrics"]["test_top1"] > 90
    assert front["metric.test_top1"].notna().all()
    assert front["cost.host.first_latency_ms"].notna().all()


def test_a_shipped_file_has_the_reported_accuracy(study):
    """Loaded by plain onnxruntime, with its default threads and the whole split as one batch."""
    _, folder = study
    images, labels = next(DigitsTask().splits().test.batches(10_000))
    for row in pd.read_csv(folder / "pareto.csv").itertuples():
        if row.number == "baseline":
            continue
        path = folder / f"models/trial_{row.number}.onnx"
        session = onnxruntime.InferenceSession(path)
        outputs = session.run(None, {session.get_inputs()[0].name: images})[0]
        top1 = 100 * float(np.mean(outputs.argmax(axis=1) == labels))
        table = pd.read_csv(folder / "pareto.csv").set_index("number")
        assert top1 == pytest.approx(table.loc[row.number, "metric.test_top1"], abs=1e-9)
        candidate = {p.key: p.value for p in onnx.load(path).metadata_props}["paredown.candidate"]
        assert json.loads(candidate)["quantize.scheme"] == table.loc[row.number, "knob.quantize.scheme"]


def test_dry_run_runs_no_trial_and_writes_nothing(paredown, digits_onnx, tmp_path):
    ran = paredown("model=onnx", f"model.checkpoint={digits_onnx}", "dry_run=true")
    assert ran.status == 0, ran.err
    for text in (
        "quantize.scheme",
        "candidates",
        "export -> quantize",
        "host, stm32h743",
        "about",
        "no trial was run",
    ):
        assert text in ran.out
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_gives_every_study_its_own_folder(paredown, digits_onnx, tmp_path):
    ran = paredown(
        "--multirun", "model=onnx", f"model.checkpoint={digits_onnx}", "study.n_trials=1", "seed=1,2",
        "evaluator=[accuracy,cost]", "objective=accuracy_size",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    summaries = sorted((tmp_path / "outputs").rglob("summary.json"))
    assert [json.loads(p.read_text())["seed"] for p in summaries] == [1, 2]
    assert "picks of 2 seeds" in ran.out
    pages = [path for path in (tmp_path / "outputs").iterdir() if path.is_file()]
    assert sorted(path.suffix for path in pages) == [".csv", ".html"]
    assert all(path.name.startswith("digits-evaluator=[accuracy,cost],") for path in pages)

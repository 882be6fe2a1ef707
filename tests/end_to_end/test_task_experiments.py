"""Every task's experiment, as a user runs it: to the end, with the metric's direction, intervals and a report."""

import csv
import json
from pathlib import Path

import pytest

# experiment: the metric that is searched by, and whether lower is better
EXPERIMENTS = {
    "diabetes": ("rmse", True),
    "digit_anomaly": ("auc", False),
    "digit_columns": ("token_accuracy", False),
    "digit_detection": ("map", False),
    "digit_rows": ("symbol_error_rate", True),
    "digits_embeddings": ("recall_at_1", False),
    "jamming": ("return", False),
    "made_series": ("mase", True),
    "python_language": ("perplexity", True),
    "python_text": ("top1", False),
    "retranslate": ("token_accuracy", False),
    "shapes_segmentation": ("miou", False),
    "super_resolution": ("psnr", False),
    "tones": ("top1", False),
    "tones_board": ("top1", False),
    "tones_waveform": ("top1", False),
    "tumours_yes_no": ("auc", False),
}


N_TRIALS = {"tones_board": 8}  # its first candidates exceed the board


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_to_the_end(name, paredown, tmp_path):
    metric, is_lower_better = EXPERIMENTS[name]
    ran = paredown(
        f"experiment={name}", f"study.n_trials={N_TRIALS.get(name, 3)}", "study.name=tried", "knowledge=none"
    )
    assert ran.status == 0, ran.out + ran.err
    folder = tmp_path / "outputs/tried"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["n_failed"] == 0
    base = summary["baseline"]["metrics"][metric]
    with (folder / "trials.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    for row in rows:
        value, drop = float(row[f"metric.{metric}"]), float(row[f"metric.{metric}_drop"])
        assert drop == pytest.approx((value - base) * (1 if is_lower_better else -1), abs=1e-6)
        if row.get(f"metric.{metric}_low"):
            assert float(row[f"metric.{metric}_low"]) <= value <= float(row[f"metric.{metric}_high"])
    assert metric.replace("_", " ") in ran.out
    assert (folder / "report.html").stat().st_size > 0
    assert list((folder / "models").glob("*.onnx"))


def test_every_experiment_of_a_task_is_tried():
    conf = Path(__file__).parents[2] / "conf/experiment"
    given_data = {
        "breast_cancer",
        "cifar10_prune",
        "cifar10_resnet20",
        "imagenet_mobilenet_v2",
        "kws",
        "cifar10_architectures",
        "har_architectures",
        "mcu_har",
        "stories15m",
        "tabular",
    }
    assert {path.stem for path in conf.glob("*.yaml")} == given_data | set(EXPERIMENTS)

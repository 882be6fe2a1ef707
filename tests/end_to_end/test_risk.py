"""Risk as a constraint: false negatives by class, and robustness to degraded images."""

import json

import pandas as pd
import pytest

EXCESS = "metric.false_negatives_excess"


@pytest.mark.slow
def test_models_on_the_front_meet_the_limit_on_false_negatives(paredown, tmp_path):
    ran = paredown(
        "experiment=breast_cancer", "study.n_trials=5", "study.report=false", "sampler=random", "knowledge=none",
        "space.recover.epochs.choices=[1,10]", "space.recover.learning_rate=0.01", "evaluator.class_risk.margin=0.9",
    )  # fmt: skip
    assert ran.status in (0, 3), ran.err
    folder = tmp_path / "outputs/breast_cancer"
    trials = pd.read_csv(folder / "trials.csv").set_index("number")
    summary = json.loads((folder / "summary.json").read_text())
    judged = trials[trials["state"].isin(["complete", "infeasible"])]
    meets = (judged[EXCESS] <= 0) & (judged["metric.top1_drop"] <= 3)
    assert len(judged) >= 2
    assert ((judged["state"] == "complete") == meets).all()
    assert (ran.status == 0) == meets.any()
    assert ("test_false_negatives_1" in summary["baseline"]["metrics"]) == meets.any()
    for number in (n for n in summary["pareto"] if n != "baseline"):
        assert meets[number]
        assert trials.loc[number, "metric.test_false_negatives_1"] >= 0
    if summary["best"] is not None:
        assert summary["best"]["number"] in summary["pareto"]


def test_the_report_compares_calibration_with_and_without_degraded_images(paredown, digits_onnx, tmp_path):
    ran = paredown(
        "model=onnx", f"model.checkpoint={digits_onnx}", "space=degraded_calibration", "sampler=brute_force",
        "evaluator=[accuracy,cost,robustness,class_risk]", "objective=safe_classes", "device=host", "study.n_trials=8",
        "space.quantize.clipping=mse", "space.quantize.scheme=asymmetric", "evaluator.robustness.n_images=32",
        "+objective.constraints.robust={measure: robustness_drop_worst, max: 90.0}",
    )  # fmt: skip
    assert ran.status in (0, 3), ran.err
    folder = tmp_path / "outputs/digits"
    trials = pd.read_csv(folder / "trials.csv")
    assert len(trials) == 8
    assert set(trials["knob.quantize.degraded_share"]) == {0.0, 0.5}
    assert trials["metric.robustness_drop_worst"].notna().all()
    assert "Calibrating on degraded images" in ran.out
    assert "over 4 pairs of trials that differ in nothing else" in (folder / "report.html").read_text()


def test_evaluators_that_do_not_fit_the_data_are_reported_before_the_search(paredown, digits_onnx):
    model = ("model=onnx", f"model.checkpoint={digits_onnx}")
    ran = paredown(*model, "evaluator=[accuracy,cost,class_risk]", "evaluator.class_risk.classes=[11]")
    assert ran.status == 2
    assert "evaluator.class_risk.classes: no example of the split is of class 11" in ran.err
    tumours = (
        "experiment=breast_cancer",
        "study.n_trials=1",
        "evaluator=[accuracy,robustness]",
        "objective=accuracy",
    )
    ran = paredown(*tumours, "~evaluator.class_risk")
    assert ran.status == 2
    assert "evaluator.robustness degrades images, but inputs of shape (30,) are no images" in ran.err
    ran = paredown(*tumours[:2], "+space.quantize.degraded_share=0.5")
    assert ran.status == 2
    assert "quantize.degraded_share must be 0" in ran.err

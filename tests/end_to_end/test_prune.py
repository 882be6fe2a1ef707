"""Networks that are pruned, trained and quantized in one study, from the command line to the shipped file."""

import json

import numpy as np
import pandas as pd
import pytest

STAGES = "stage=[prune,recover,export,quantize]"
SMALL = [
    STAGES, "space=prune_quantize", "device=stm32h743", "evaluator=[accuracy,cost]", "knowledge=none",
    "~space.prune.keep", "+space.prune.keep=[0.5,1.0]", "space.prune.criterion=[magnitude_l2]", "space.quantize.weight_bits=8",
    "space.quantize.granularity=channel", "space.quantize.clipping=max", "space.quantize.bias_correction=false",
    "space.quantize.calibration_images=64", "objective.constraints.drop.max=50",
]  # fmt: skip


def session(path):
    import onnxruntime as ort

    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_reported(ran, *texts):
    assert ran.status == 2, ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    assert "measuring the float model" not in ran.out
    for text in texts:
        assert text in " ".join(ran.err.split()), ran.err


def test_a_pruned_and_quantized_network_is_shipped(paredown, tmp_path):
    ran = paredown(*SMALL, "sampler=brute_force", "study.n_trials=2", "study.name=small")
    assert ran.status == 0, ran.out + ran.err
    folder = tmp_path / "outputs/small"
    table = pd.read_csv(folder / "trials.csv").set_index("knob.prune.keep")
    assert list(table.state) == ["complete", "complete"]
    assert table.loc[0.5, "metric.file_bytes"] < table.loc[1.0, "metric.file_bytes"]
    assert table.loc[0.5, "cost.stm32h743.latency_ms"] < table.loc[1.0, "cost.stm32h743.latency_ms"]
    assert table["seconds.recover"].notna().all()
    record = json.loads((folder / "summary.json").read_text())
    for number in record["pareto"]:
        outputs = session(folder / f"models/trial_{number}.onnx").run(
            None, {"input": np.zeros((3, 1, 8, 8), np.float32)}
        )
        assert outputs[0].shape == (3, 10)
    report = (folder / "report.html").read_text()
    assert "multiply-accumulates" in report
    assert "the networks were cut or trained" in report


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["space.prune.keep=[0.0001]"], ["space.prune", "keep"]),
        (["+space.prune.protect=[[fc9*]]"], ["space.prune", "protect", "fc9*"]),
        (["space.prune.criterion=[magic]"], ["space.prune.criterion", "'magic'", "magnitude_l2"]),
        (["space.prune.budget_of=latency_ms", "stage.prune.device=boord"], ["boord", "stm32h743"]),
        (["space.recover.epochs=-1"], ["space.recover.epochs", "-1"]),
        (["accelerator=abacus"], ["accelerator must be one of auto, cpu, cuda"]),
        (["accelerator=cuda"], ["cuda"]),
        (["stage=[export,prune,recover,quantize]"], ["Order them so: stage=[prune,recover,export,quantize]"]),
        (["stage=[prune,recover]", "~space.quantize"], ["add `export`"]),
        (["pruner=magic"], ["Unknown pruner 'magic'", "median"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and "=" in value[0] else "",
)  # fmt: skip
def test_mistakes_are_reported_before_training(paredown, tmp_path, arguments, texts):
    assert_reported(paredown(*SMALL, "study.name=wrong", *arguments), *texts)
    assert not (tmp_path / "outputs/wrong/trials.csv").exists()


def test_an_onnx_file_cannot_be_pruned(paredown, digits_onnx):
    assert_reported(
        paredown(*SMALL, "model=onnx", f"model.checkpoint={digits_onnx}"),
        "`prune` takes a torch network, but model=onnx gives an ONNX file",
        "model=torch",
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_serial_processes_and_ray_agree(paredown, tmp_path):
    tables = {}
    for executor in ("serial", "processes", "ray"):
        ran = paredown(
            *SMALL, "sampler=brute_force", "study.n_trials=2", f"executor={executor}", f"study.name={executor}",
            "cache_bytes=0", "evaluator.accuracy.stop_early=false",
        )  # fmt: skip
        assert ran.status == 0, ran.err
        table = pd.read_csv(tmp_path / f"outputs/{executor}/trials.csv").sort_values("knob.prune.keep")
        kept = [c for c in table if c.startswith(("metric.", "cost.")) and ".test_" not in c]
        tables[executor] = table[kept].reset_index(drop=True)
    pd.testing.assert_frame_equal(tables["serial"], tables["processes"], check_like=True)
    pd.testing.assert_frame_equal(tables["serial"], tables["ray"], check_like=True)


@pytest.mark.slow
def test_a_pruned_trial_ends_training_early_with_a_reason(paredown, tmp_path):
    settings = [setting for setting in SMALL if "keep" not in setting and not setting.startswith("objective")]
    ran = paredown(
        *settings, "objective=accuracy", "sampler=random", "study.n_trials=8", "study.name=pruned", "~space.constraints",
        "+space.recover.learning_rate=[1e-6,0.05]", "space.recover.epochs=3", "pruner=median", "pruner.n_startup_trials=2",
        "evaluator.accuracy.stop_early=false",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    table = pd.read_csv(tmp_path / "outputs/pruned/trials.csv")
    pruned = table[table.state == "pruned"]
    assert len(pruned) > 0
    assert pruned.reason.str.contains("of 3 of recover: MedianPruner stops it in view of").all()


@pytest.mark.slow
def test_a_dry_run_estimates_the_time_without_a_full_training(paredown):
    ran = paredown(*SMALL, "study.n_trials=2", "space.recover.epochs=500", "dry_run=true")
    assert ran.status == 0, ran.err
    assert "prune -> recover -> export -> quantize" in " ".join(ran.out.split())
    assert "time         about" in ran.out

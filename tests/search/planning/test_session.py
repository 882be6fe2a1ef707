"""What `dry_run=true` prints, and what it does not do."""

import io
import subprocess
import sys

import onnx
import torch
import yaml
from rich.console import Console

from search.api import compose, run
from search.planning.session import prepare
from search.trials.trial import CompressionRunner
from spaces.models import export
from spaces.models.zoo import first_training
from spaces.space import Space


def test_a_dry_run_builds_no_candidate(tiny, tmp_path, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("a candidate is proposed, built or judged")

    for method in ("run", "build", "_build", "key", "keys", "structural"):
        monkeypatch.setattr(CompressionRunner, method, refuse)
    onnx.save(tiny, tmp_path / "net.onnx")
    text = io.StringIO()
    run(
        [
            "model=onnx", f"model.checkpoint={tmp_path / 'net.onnx'}", "evaluator=[accuracy,cost]", "device=[stm32h743]",
            "objective=accuracy_size", "objective.constraints.drop=null", "tracker=none", "task.calibration=16",
            "task.validation=100", "task.test=50", "study.name=dry", f"study.dir={tmp_path / 'out'}",
            f"cache_dir={tmp_path / 'cache'}", "space=quantize", "study.n_trials=1000", "dry_run=true",
        ],
        console=Console(file=text, width=200),
    )  # fmt: skip
    printed = text.getvalue()
    assert "time         about" in printed
    assert "to measure all trials; what it takes to build or train them comes on top" in printed
    assert "quantize.scheme" in printed
    assert not (tmp_path / "out").exists()


def test_the_shipped_space_suits_a_network_without_batch_norm(tmp_path, monkeypatch):
    (tmp_path / "plain_net.py").write_text(
        "import torch.nn as nn\n"
        "def Net(): return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), "
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import plain_net

    torch.save(plain_net.Net().state_dict(), tmp_path / "net.pt")
    text = io.StringIO()
    overrides = [
        "model=torch", "model.cls=plain_net.Net", f"model.checkpoint={tmp_path / 'net.pt'}", "model.input_shape=[1,8,8]",
        "trusted_modules=[plain_net]", "evaluator=[accuracy,cost]", "device=[stm32h743]", "objective=accuracy_size",
        "tracker=none", "task.calibration=16", "task.validation=100", "task.test=50", "study.name=dry",
        f"study.dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}", "stage=[prune,recover,export]", "space=prune", "dry_run=true",
        "space.prune.criterion=[magnitude_l2,bn_gamma,fpgm]",
    ]  # fmt: skip
    run(overrides, console=Console(file=text, width=200))
    printed = " ".join(text.getvalue().split())
    assert "note prune.criterion=bn_gamma is left out: prune.criterion=bn_gamma needs a BatchNorm" in printed
    assert "magnitude_l2, fpgm" in printed


def test_a_dry_run_imports_no_library_that_it_does_not_need(tiny, tmp_path):
    onnx.save(tiny, tmp_path / "net.onnx")
    overrides = [
        "model=onnx", f"model.checkpoint={tmp_path / 'net.onnx'}", "device=[stm32h743]", f"cache_dir={tmp_path / 'cache'}", "dry_run=true",
    ]  # fmt: skip
    code = f"import sys; from search.cli.app import run_command; assert run_command({overrides}) == 0; print('\\n' + ','.join(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "dry_run=true: no trial was run" in ran.stdout
    imported = set(ran.stdout.splitlines()[-1].split(","))
    assert "onnxruntime" in imported
    assert not imported & {"torch", "sklearn", "scipy", "pandas", "mlflow", "xgboost", "onnxscript"}


def test_a_dry_run_trains_no_network_lists_no_candidates_and_writes_nothing(tmp_path, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("the network is trained or exported properly, or the space is enumerated")

    monkeypatch.setattr(first_training, "train", refuse)
    monkeypatch.setattr(export, "_from_torch", refuse)
    monkeypatch.setattr(Space, "enumerate", refuse)
    overrides = [f"cache_dir={tmp_path / 'cache'}", f"study.dir={tmp_path / 'out'}", "dry_run=true"]
    text = io.StringIO()
    run(overrides, console=Console(file=text, width=200))
    assert "time         about" in text.getvalue()
    assert (
        "which nodes stay float is known, and said, once the study has exported the network"
        in text.getvalue()
    )
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_recorded(tmp_path):
    (tmp_path / "t.csv").write_text("task,knob.a,metric.top1\nx,1,50\nx,2,60\n")
    config = compose(
        [
            "experiment=tabular", f"tabular.path={tmp_path / 't.csv'}", "sampler=random", f"study.dir={tmp_path / 'out'}",
            "study.storage='postgresql://me:hunter 2/@h/d'", "model={uri:'http://host:5000',api_key:123456,password:'it is hidden'}",
        ]
    )  # fmt: skip
    plan = prepare(config, lambda text: None).plan
    assert plan.storage == "postgresql://me:hunter 2/@h/d"  # what is used is whole
    for text in (plan.command, yaml.safe_dump(dict(plan.record))):
        assert "postgresql://***@h/d" in text
        assert "http://host:5000" in text
        for secret in ("hunter", "123456", "hidden"):
            assert secret not in text


def test_a_study_begins_with_the_defaults_of_each_precision(tmp_path, tiny):
    onnx.save(tiny, tmp_path / "net.onnx")
    words = [
        "model=onnx", f"model.checkpoint={tmp_path / 'net.onnx'}", "evaluator=[accuracy,cost]", "device=[stm32h743]",
        "objective=accuracy_size", "tracker=none", "task.calibration=16", "task.validation=100", "task.test=50",
        f"study.dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    first = prepare(compose([*words, "space=matrix_products"]), lambda _: None).plan.first
    assert [candidate["quantize.precision"] for candidate in first] == ["static", "dynamic"]
    assert first[0]["quantize.weight_bits"] == 8
    assert "quantize.weight_bits" not in first[1]
    (only,) = prepare(compose([*words, "space=quantize"]), lambda _: None).plan.first
    assert only["quantize.scheme"] == "asymmetric"
    assert not prepare(compose([*words, "study.start_with_defaults=false"]), lambda _: None).plan.first

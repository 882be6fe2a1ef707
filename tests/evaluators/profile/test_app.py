import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from evaluators.cost.graph.runtime_graph import runtime_graph
from evaluators.cost.latency.roofline import roofline
from evaluators.devices.config import devices_from_config
from evaluators.profile import app
from evaluators.profile.app import INTERRUPTED, OK, USAGE, run_command
from evaluators.testing import tiny_model
from search.planning.config.device_files import catalogue


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("profile")
    # ends after 24 networks, within seconds unless the machine is busy
    options = ["--name", "my_laptop", "--out", str(place), "--minutes", "3", "--networks", "24"]
    assert run_command(options) == OK
    return place


def test_writes_a_device_that_the_config_reads(folder):
    text = (folder / "device/my_laptop.yaml").read_text()
    assert text.startswith("# @package device\n# paredown --config-dir ")
    device = devices_from_config(yaml.safe_load(text))["my_laptop"]
    assert device.runtime.startswith("onnxruntime 1.")
    assert (device.fusion, device.bound, device.measured) == ("onnxruntime", "sum", False)
    assert {"float32", "int8"} <= set(device.macs_per_s)
    assert device.error["latency_ms"] > 0
    assert {source.tag for source in device.sources.values()} == {"measured"}
    assert sorted(p.name for p in (folder / "device").iterdir()) == [
        "my_laptop.residual.json",
        "my_laptop.yaml",
    ]


def test_the_device_predicts_networks_that_were_not_timed(folder):
    device = catalogue([folder]).devices["my_laptop"]
    for artifact in (tiny_model(), tiny_model(weight_bits=8)):
        modelled = roofline(runtime_graph(artifact), device)
        assert np.isfinite(modelled.latency_ms)
        assert modelled.latency_ms > device.run_overhead_us / 1e3
        assert (modelled.kernel_ms > 0).all()


def test_the_device_is_part_of_the_composed_config(folder):
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module(version_base="1.3", config_module="conf"):
        from search.planning.config.schema import register_schema

        register_schema()
        config = compose(
            "config", overrides=[f"hydra.searchpath=[file://{folder}]", "device=my_laptop", "tracker=none"]
        )
    assert list(config.device) == ["my_laptop"]
    assert config.device.my_laptop.residual == "my_laptop.residual.json"


def test_the_folder_can_be_moved(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    residual = catalogue([moved]).devices["my_laptop"].residual
    assert Path(residual).is_relative_to(moved)
    assert json.loads(Path(residual).read_text())["kind"] == "kernel"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--name", "my laptop"], "--name"),
        (["--minutes", "0"], "--minutes"),
        (["--minutes", "nan"], "--minutes"),
        (["--minutes", "soon"], "--minutes"),
        (["--threads", "0"], "--threads"),
        (["--dtypes", "float32,int9"], "int9"),
        (["--dtypes", ""], "--dtypes"),
        (["--seed", "-1"], "--seed"),
        (["--networks", "3"], "--networks"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, capsys, options, text):
    given = ["--name", "ok", "--out", str(tmp_path / "new"), *options]
    assert run_command(given) == USAGE
    printed = capsys.readouterr().err
    assert text in printed
    assert len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_missing_options_and_a_file_as_folder_are_reported(tmp_path, capsys):
    assert run_command([]) == USAGE
    assert "--name" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run_command(["--name", "a", "--out", str(tmp_path / "file")]) == USAGE
    assert "folder" in capsys.readouterr().err


def test_ctrl_c_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_measure", interrupted)
    assert run_command(["--name", "a", "--out", str(tmp_path / "new")]) == INTERRUPTED
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()

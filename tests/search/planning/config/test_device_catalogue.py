"""The profiles that come with the package: all load, all figures say where they come from, all predict."""

import re
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import get_class

from evaluators.cost.cost import DeviceCosts, Graphs
from evaluators.devices.config import device_from_config
from evaluators.devices.sources import given_figures, unsourced
from search.api import compose
from search.planning.config.device_files import catalogue
from search.planning.config.shipped import shipped
from spaces.models.base import LoadContext
from spaces.models.export import ExportStage
from spaces.quantization.quantize import QuantizeStage
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

FOUND = catalogue([shipped()])
NAMES = sorted(FOUND.devices)
MODELLED = [name for name in NAMES if not FOUND.devices[name].measured]
DATA = Path(__file__).parents[4].parent / "shared/data"
TINY = {"AD": "ad01_fp32", "KWS": "kws_ref_model_float32", "IC": "pretrainedResnet", "VWW": "vww_96_float"}


def quantized(artifact):
    split = noise_split(artifact.input.shape, n=4)
    stage = QuantizeStage()
    values = {knob.name: knob.default for knob in stage.knobs}
    return stage.apply(artifact, values, StageContext(split, Cache(None), 0))


def costs(artifact, name):
    device = FOUND.devices[name]
    return DeviceCosts(Graphs(artifact).on(device), device)


@pytest.fixture(scope="module")
def tiny():
    """MLPerf Tiny's reference networks in 8 bits."""
    folder = DATA / "mlperf_tiny"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    import onnx

    found = {}
    for task, file in TINY.items():
        proto = onnx.load(folder / f"{file}.onnx")
        given = proto.graph.input[0]
        shape = tuple(d.dim_value for d in given.type.tensor_type.shape.dim)[1:]
        context = StageContext(noise_split(shape, n=1), Cache(None), 0)
        found[task] = quantized(
            ExportStage().apply(Artifact.onnx(proto, InputSpec(shape, given.name)), {}, context)
        )
    return found


def test_there_are_many_and_of_every_kind():
    assert len(MODELLED) >= 30
    pairs = {(FOUND.devices[n].description, FOUND.devices[n].runtime) for n in MODELLED}
    assert len(pairs) == len(MODELLED), "one profile for each (hardware, runtime)"
    kinds = {"microcontrollers", "single_board_computers", "accelerators", "fpgas", "gpus", "phones"}
    assert kinds <= set(FOUND.groups)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_in_the_file_of_its_name_and_says_what_it_is(name):
    device = FOUND.devices[name]
    assert FOUND.files[name] == shipped() / "device" / f"{name}.yaml"
    assert device.description
    assert device.runtime
    assert device.measured == (name == "host")


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source_and_every_source_a_figure(name):
    device = FOUND.devices[name]
    assert unsourced(device) == ()
    assert {key.split(".")[0] for key in device.sources} == set(given_figures(device))


def test_a_figure_without_source_is_found():
    profile = {"runtime": "x", "macs_per_s": {"int8": 1e9, "float32": 1e8}, "ram_bytes": "1 KiB"}
    assert unsourced(device_from_config("d", profile, "d")) == ("macs_per_s", "ram_bytes")
    profile["sources"] = {"macs_per_s": {"int8": {"measured": "me"}}, "ram_bytes": {"stated": "me"}}
    assert unsourced(device_from_config("d", profile, "d")) == ("macs_per_s.float32",)


@pytest.mark.parametrize("group", sorted(FOUND.groups))
def test_a_group_puts_its_profiles_into_one_study(group):
    members = list(FOUND.groups[group])
    assert list(compose([f"device={group}"]).data["device"]) == members
    assert list(compose([f"device=[host,{group}]"]).data["device"]) == ["host", *members]
    assert len(set(members)) == len(members) >= 3


def exported(model):
    """A network of the zoo with random weights."""
    section = dict(compose([f"model={model}", "model.checkpoint=null"]).data["model"])
    source = get_class(section.pop("_target_"))(**section)
    artifact = source.load(LoadContext(noise_split(tuple(section["input_shape"]), n=1), Path("unused"), 0))
    return ExportStage().apply(
        artifact, {}, StageContext(noise_split(artifact.input.shape, n=1), Cache(None), 0)
    )


def assert_predicted_or_explained(artifact, is_float):
    silent = []
    for name in MODELLED:
        device, found = FOUND.devices[name], costs(artifact, name)
        memory = {m.name: m.value for m in found.measurements()}
        assert memory["peak_sram_bytes"] > 0
        if found.latency_ms is not None:
            assert 0 < found.latency_ms < 1e7
            assert (found.energy_uj is None) == (device.active_power_mw is None and device.op_energy is None)
            continue
        silent.append(name)
        assert name in found.because()[f"cost.{name}.latency_ms"]
        if not is_float and device.fabric is None:
            assert "int8" not in device.macs_per_s
    return silent


def test_networks_are_predicted_or_the_reason_is_given():
    floating = exported("resnet20")
    silent = assert_predicted_or_explained(floating, is_float=True)
    assert "ethos_u55_128" in silent
    assert not {"raspberry_pi_4", "a100", "stm32h743", "stm32h7a3_hale"} & set(silent)
    silent = assert_predicted_or_explained(quantized(floating), is_float=False)
    assert len(silent) < 10
    assert not {"ethos_u55_128", "stm32l4r5", "a100"} & set(silent)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenet_v2", "squeezenet"])
def test_imagenet_networks_are_predicted_or_the_reason_is_given(model):
    floating = exported(model)
    assert_predicted_or_explained(floating, is_float=True)
    assert_predicted_or_explained(quantized(floating), is_float=False)


def rows_of(name):
    """The measured latencies of MLPerf Tiny that a profile's 8-bit throughput says it comes from."""
    sources = FOUND.devices[name].sources
    source = sources.get("macs_per_s.int8", sources.get("macs_per_s"))
    if (
        source is None
        or not source.text.startswith("MLPerf Tiny")
        or "int8" not in FOUND.devices[name].macs_per_s
    ):
        return {}
    return {task: float(ms) for task, ms in re.findall(r"\b(AD|KWS|IC|VWW) ([\d.]+)(?=,| ms)", source.text)}


FITTED = [name for name in MODELLED if rows_of(name)]


def test_many_profiles_come_from_measured_rows():
    assert len(FITTED) >= 15


@pytest.mark.parametrize("name", FITTED)
def test_what_a_profile_says_it_comes_from_is_in_the_table(name):
    path = DATA / "tables/mlperf_tiny.csv"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    import pandas as pd

    if name.startswith("nrf5340"):
        pytest.skip("the submitter's README has these rows, the table does not")
    table = pd.read_csv(path)
    round_ = re.search(r"MLPerf Tiny (v\d\.\d)", FOUND.devices[name].sources["macs_per_s"].text)[1]
    for task, ms in rows_of(name).items():
        measured = table[(table["round"] == round_) & (table.task == task.lower())].latency_ms
        assert np.isclose(measured, ms, rtol=1e-3).any(), (task, ms)


@pytest.mark.parametrize("name", FITTED)
def test_predictions_are_near_the_rows_they_come_from(name, tiny):
    error = FOUND.devices[name].error.get("latency_ms")
    rows = rows_of(name)
    ratios = [costs(tiny[task], name).latency_ms / ms for task, ms in rows.items()]
    allowed = 2.6  # whole networks, one scale a board
    assert all(1 / allowed < ratio < allowed for ratio in ratios), dict(zip(rows, ratios, strict=True))
    assert error is not None
    # The error is that of predicting held-out networks, so fitted ones are nearer on the whole.
    assert np.median(np.abs(np.array(ratios) - 1)) < max(1.2 * error, 0.1)


@pytest.mark.parametrize("name", [n for n in FITTED if FOUND.devices[n].active_power_mw])
def test_energy_is_power_times_latency(name, tiny):
    found = costs(tiny["IC"], name)
    assert found.energy_uj == pytest.approx(found.latency_ms * FOUND.devices[name].active_power_mw)

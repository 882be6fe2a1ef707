import pickle
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from evaluators.devices import DTYPES, FIGURES, Device, devices_from_config
from spaces.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "device").glob("*.yaml"))
GOOD = {"runtime": "TensorFlow Lite", "macs_per_s": {"int8": 1e9}}


def composed(*overrides):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(overrides=list(overrides)), resolve=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_profile_loads_alone(name):
    (device,) = devices_from_config(composed(f"+device={name}")["device"]).values()
    assert device.name == name
    assert device.measured == (name == "host")
    assert device.description


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_of_a_shipped_profile_has_a_source(name):
    profile = composed(f"+device={name}")["device"][name]
    figures = {key for key in profile if key in FIGURES}
    assert set(profile.get("sources", {})) == figures


@pytest.mark.parametrize(
    "path", sorted(CONF.glob("device/*.yaml")) + sorted(CONF.glob("evaluator/*.yaml")), ids=str
)
def test_every_file_opens_with_the_command_that_uses_it(path):
    assert "# paredown " in "\n".join(path.read_text().splitlines()[:2])


def test_several_devices_make_one_study():
    devices = devices_from_config(composed("+device=[host,stm32l4r5,ethos_u55_128]")["device"])
    assert list(devices) == ["host", "stm32l4r5", "ethos_u55_128"]


def test_evaluators_compose_and_can_be_made():
    from hydra.utils import instantiate

    config = composed("+evaluator=[accuracy,cost,latency]")["evaluator"]
    assert [instantiate(config[name]).name for name in config] == ["accuracy", "cost", "latency"]


def test_a_profile_as_people_write_it():
    profile = {
        **GOOD,
        "ram_bytes": "640 KiB",
        "flash_bytes": 2**21,
        "kernel_overhead_us": 0,
        "efficiency": 0.5,
    }
    device = devices_from_config({"mine": profile})["mine"]
    assert (device.ram_bytes, device.flash_bytes) == (640 * 1024, 2**21)
    assert device.kernel_overhead_us == 0.0
    assert device.memory_bandwidth_bytes_per_s is None
    assert device.throughput("int8") == 5e8
    assert device.throughput("int4") == 5e8  # unpacked to int8
    assert device.throughput("float32") is None
    assert pickle.loads(pickle.dumps(device)) == device


def test_half_precision_runs_as_float32_where_nothing_else_is_said():
    assert Device("d", macs_per_s={"float32": 7.0}).throughput("float16") == 7.0
    assert Device("d", macs_per_s={"float32": 7.0, "float16": 14.0}).throughput("float16") == 14.0
    assert all(Device("d").throughput(dtype) is None for dtype in DTYPES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"macs_per_sec": 1},
            r"Unknown key 'macs_per_sec' in device.mine. Did you mean 'macs_per_s'\? Known: description,",
        ),
        ({"runtime": None}, r"device\.mine\.runtime is missing"),
        ({"macs_per_s": None}, r"device\.mine\.macs_per_s is missing: .* at least one of float32"),
        ({"macs_per_s": {}}, r"device\.mine\.macs_per_s is missing"),
        ({"macs_per_s": {"int9": 1}}, r"Unknown dtype 'int9' in device\.mine\.macs_per_s"),
        ({"macs_per_s": {"int8": -1}}, r"device\.mine\.macs_per_s\.int8: must not be negative, got -1"),
        (
            {"macs_per_s": {"int8": 0}},
            r"device\.mine\.macs_per_s\.int8: must be above zero; leave the figure out",
        ),
        ({"macs_per_s": {"int8": "fast"}}, r"device\.mine\.macs_per_s\.int8: expected a number, got 'fast'"),
        ({"macs_per_s": 1e9}, r"device\.mine\.macs_per_s: expected dtype: multiply-accumulates"),
        (
            {"memory_bandwidth_bytes_per_s": float("nan")},
            r"memory_bandwidth_bytes_per_s: expected a number, got nan",
        ),
        ({"memory_bandwidth_bytes_per_s": 0}, r"memory_bandwidth_bytes_per_s: must be above zero"),
        ({"kernel_overhead_us": -3}, r"device\.mine\.kernel_overhead_us: must not be negative, got -3"),
        ({"ram_bytes": "lots"}, r"device\.mine\.ram_bytes: expected a size such as"),
        ({"ram_bytes": 0}, r"device\.mine\.ram_bytes: must be above zero"),
        (
            {"efficiency": 1.5},
            r"device\.mine\.efficiency: is a share of macs_per_s, so it must be at most 1, got 1.5",
        ),
        ({"measured": "yes"}, r"device\.mine\.measured: expected true or false, got 'yes'"),
        ({"sources": {"rom_bytes": "me"}}, r"Unknown figure 'rom_bytes' in device\.mine\.sources"),
        ({"sources": "me"}, r"device\.mine\.sources: expected figure: where it comes from"),
    ],
)
def test_mistakes_name_the_key_the_value_and_what_is_right(change, message):
    with pytest.raises(ConfigError, match=message):
        devices_from_config({"mine": {**GOOD, **change}})


@pytest.mark.parametrize("config", [{}, None, []])
def test_no_device_is_refused(config):
    with pytest.raises(ConfigError, match="at least one device"):
        devices_from_config(config)


def test_a_profile_that_is_none_is_refused():
    with pytest.raises(
        ConfigError, match=r"device\.mine: expected a profile with the keys .*runtime.*, got 'host'"
    ):
        devices_from_config({"mine": "host"})

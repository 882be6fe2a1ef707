from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from evaluators.devices.config import devices_from_config
from evaluators.devices.device import TAGS, FigureSource
from evaluators.devices.sources import given_figures
from spaces.errors import ConfigError

CONF = Path(__file__).parents[3] / "conf"
GOOD = {"runtime": "TensorFlow Lite", "macs_per_s": {"int8": 1e9}}


def composed(*overrides):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(overrides=list(overrides)), resolve=True)


def read(**change):
    return devices_from_config({"mine": {**GOOD, **change}})["mine"]


def test_several_devices_make_one_study():
    devices = devices_from_config(composed("+device=[host,stm32l4r5,ethos_u55_128]")["device"])
    assert list(devices) == ["host", "stm32l4r5", "ethos_u55_128"]


def test_evaluators_compose_and_can_be_instantiated():
    from hydra.utils import instantiate

    config = composed("+evaluator=[accuracy,cost,latency]")["evaluator"]
    assert [instantiate(config[name]).name for name in config] == ["accuracy", "cost", "latency"]


def test_a_profile_with_units_and_single_numbers():
    device = read(ram_bytes="640 KiB", flash_bytes=2**21, kernel_overhead_us=3, efficiency=0.5)
    assert (device.ram_bytes, device.flash_bytes) == (640 * 1024, 2**21)
    assert device.overhead_us("conv") == device.overhead_us("pool") == 3.0
    assert device.memory_bandwidth_bytes_per_s is None
    assert device.throughput("int8") == device.throughput("int4") == 5e8
    assert device.throughput("float32") is None


def test_one_number_applies_to_every_kernel_class():
    device = read(macs_per_s={"int8": {"conv": 4e9, "default": 1e9}, "float32": 2e9})
    assert (device.throughput("int8", "conv"), device.throughput("int8", "pool")) == (4e9, 1e9)
    assert device.throughput("float32", "conv") == 2e9


def test_sections_of_a_profile():
    device = read(
        deployment={
            "weights": "stream",
            "arena": "greedy",
            "in_place": ["depthwise"],
            "overhead_bytes": "2 KiB",
        },
        fabric={"luts": 1000, "dsps": 10, "brams": 20, "clock_hz": 1e8, "lut_fraction": 0.5},
        op_energy={"scale": 0.5, "on_chip_bytes": "64 KiB", "weights_from": "dram"},
        error={"latency_ms": 0.2},
    )
    assert (device.deployment.weights, device.deployment.arena) == ("stream", "greedy")
    assert (device.deployment.in_place, device.deployment.overhead_bytes) == (("depthwise",), 2048)
    assert (device.deployment.order, device.deployment.patches) == ("best", 1)
    assert (device.fabric.brams, device.fabric.lut_fraction, device.fabric.dsp_fraction) == (20, 0.5, 0.8)
    assert (device.op_energy.on_chip_bytes, device.op_energy.weights_from) == (65536, "dram")
    assert device.error == {"latency_ms": 0.2}


@pytest.mark.parametrize("tag", TAGS)
def test_a_source_has_a_tag_and_a_text(tag):
    assert read(sources={"ram_bytes": {tag: " data sheet "}}).sources == {
        "ram_bytes": FigureSource(tag, "data sheet")
    }


def test_parts_of_a_figure_may_have_their_own_sources():
    parts = {"int8": {"measured": "me"}, "float32": {"estimated": "somebody"}, "int4": {"measured": "me"}}
    sources = read(sources={"macs_per_s": parts}).sources
    assert sources["macs_per_s.int8"] == FigureSource("measured", "me")
    assert sources["macs_per_s"] == FigureSource("estimated", "int8, int4: me; float32: somebody")


def test_given_figures_are_those_that_differ_from_the_default():
    assert given_figures(read(efficiency=1.0, ram_bytes="1 KiB")) == ("macs_per_s", "ram_bytes")
    assert given_figures(read(deployment={"order": "best"})) == ("macs_per_s",)


MISTAKES = {
    "unknown key": (
        {"macs_per_sec": 1},
        r"Unknown key 'macs_per_sec' in device.mine. Did you mean 'macs_per_s'\? Known: ",
    ),
    "no runtime": ({"runtime": None}, r"device\.mine\.runtime is missing"),
    "no throughput": (
        {"macs_per_s": None},
        r"device\.mine\.macs_per_s is missing: .* at least one of float32",
    ),
    "empty throughput": ({"macs_per_s": {}}, r"device\.mine\.macs_per_s is missing"),
    "unknown dtype": ({"macs_per_s": {"int9": 1}}, r"Unknown dtype 'int9' in device\.mine\.macs_per_s"),
    "unknown class": (
        {"macs_per_s": {"int8": {"dephtwise": 1e9}}},
        r"Unknown kernel class 'dephtwise' in device\.mine\.macs_per_s\.int8\. Did you mean 'depthwise'",
    ),
    "negative rate": (
        {"macs_per_s": {"int8": -1}},
        r"device\.mine\.macs_per_s\.int8: must not be negative, got -1",
    ),
    "negative rate of a class": (
        {"macs_per_s": {"int8": {"conv": -1}}},
        r"device\.mine\.macs_per_s\.int8\.conv: must not be negative, got -1",
    ),
    "zero rate": (
        {"macs_per_s": {"int8": 0}},
        r"device\.mine\.macs_per_s\.int8: must be above zero; leave the figure out",
    ),
    "rate in giga": (
        {"macs_per_s": {"int8": 12.8}},
        r"device\.mine\.macs_per_s\.int8: 12.8 a second cannot be meant",
    ),
    "text for a rate": (
        {"macs_per_s": {"int8": "fast"}},
        r"device\.mine\.macs_per_s\.int8: expected a number, got 'fast'",
    ),
    "number for dtypes": (
        {"macs_per_s": 1e9},
        r"device\.mine\.macs_per_s: expected dtype: multiply-accumulates",
    ),
    "nan": (
        {"memory_bandwidth_bytes_per_s": float("nan")},
        r"memory_bandwidth_bytes_per_s: expected a number, got nan",
    ),
    "zero bandwidth": (
        {"memory_bandwidth_bytes_per_s": 0},
        r"memory_bandwidth_bytes_per_s: must be above zero",
    ),
    "negative overhead": (
        {"kernel_overhead_us": -3},
        r"device\.mine\.kernel_overhead_us: must not be negative, got -3",
    ),
    "words for a size": ({"ram_bytes": "lots"}, r"device\.mine\.ram_bytes: expected a size such as"),
    "zero size": ({"ram_bytes": 0}, r"device\.mine\.ram_bytes: must be above zero"),
    "size in KiB": ({"ram_bytes": 512}, r'device\.mine\.ram_bytes: 512 bytes cannot be meant; .*"512 KiB"'),
    "efficiency over one": (
        {"efficiency": 1.5},
        r"device\.mine\.efficiency: is a share, so it must be at most 1, got 1.5",
    ),
    "text for a flag": ({"measured": "yes"}, r"device\.mine\.measured: expected true or false, got 'yes'"),
    "unknown figure": ({"sources": {"rom_bytes": {"stated": "me"}}}, r"Unknown figure 'rom_bytes' in"),
    "sources as text": ({"sources": "me"}, r"device\.mine\.sources: expected figure: where it comes from"),
    "source without tag": (
        {"sources": {"ram_bytes": "me"}},
        r"device\.mine\.sources\.ram_bytes: expected one of measured, stated, .* got 'me'",
    ),
    "unknown tag": (
        {"sources": {"ram_bytes": {"mesured": "me"}}},
        r"Unknown tag 'mesured' in device\.mine\.sources\.ram_bytes\. Did you mean 'measured'",
    ),
    "empty source": (
        {"sources": {"ram_bytes": {"stated": " "}}},
        r"device\.mine\.sources\.ram_bytes\.stated: expected where the figure comes from, got ' '",
    ),
    "unknown memory": (
        {"deployment": {"weights": "rom"}},
        r"device\.mine\.deployment\.weights: expected one of flash, ram, stream, got 'rom'",
    ),
    "unknown deployment key": (
        {"deployment": {"allignment_bytes": 16}},
        r"Unknown key 'allignment_bytes' in device\.mine\.deployment\. Did you mean 'alignment_bytes'",
    ),
    "class that writes in place": (
        {"deployment": {"in_place": ["relu"]}},
        r"Unknown kernel class 'relu' in device\.mine\.deployment\.in_place",
    ),
    "fabric without clock": (
        {"fabric": {"luts": 1, "dsps": 1, "brams": 1}},
        r"device\.mine\.fabric\.clock_hz is missing",
    ),
    "clock in MHz": (
        {"fabric": {"luts": 1, "dsps": 1, "brams": 1, "clock_hz": 200}},
        r"device\.mine\.fabric\.clock_hz: 200 a second cannot be meant",
    ),
    "source of an unknown part": (
        {"sources": {"macs_per_s": {"int8": {"stated": "me"}, "int9": {"stated": "me"}}}},
        r"device\.mine\.sources\.macs_per_s: expected one of measured, stated,",
    ),
    "empty runtime": ({"runtime": " "}, r"device\.mine\.runtime: expected text, got ' '"),
    "no class": (
        {"macs_per_s": {"int8": {}}},
        r"device\.mine\.macs_per_s\.int8: expected a number, or one for",
    ),
    "error of nothing": ({"error": {"top1": 0.1}}, r"Unknown cost 'top1' in device\.mine\.error"),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_error_messages_name_the_key_the_value_and_what_is_expected(change, message):
    with pytest.raises(ConfigError, match=message):
        read(**change)


@pytest.mark.parametrize("config", [{}, None, []])
def test_no_device_is_refused(config):
    with pytest.raises(ConfigError, match="at least one device"):
        devices_from_config(config)


def test_a_profile_that_is_no_mapping_is_refused():
    with pytest.raises(ConfigError, match=r"device\.mine: expected the keys .*runtime.*, got 'host'"):
        devices_from_config({"mine": "host"})

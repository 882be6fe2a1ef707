"""A mistake in a device profile names the file that holds it."""

from dataclasses import replace

import pytest

from search.api import compose
from search.planning.config.device_files import catalogue, devices_of, profile_file
from search.planning.config.shipped import shipped
from spaces.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "device").mkdir()
    return tmp_path


def write(folder, text, name="mine"):
    path = folder / "device" / f"{name}.yaml"
    path.write_text(f"# @package device\n{text}")
    return path


def config_of(folder, *overrides):
    return compose([f"hydra.searchpath=[file://{folder}]", *overrides])


def test_the_search_path_has_the_users_folders_and_ours(folder):
    write(folder, "mine: {runtime: x, macs_per_s: {int8: 1.0e+9}}\n")
    config = config_of(folder, "device=mine")
    assert {folder, shipped()} <= set(config.search_path)
    assert list(devices_of(config)) == ["mine"]


@pytest.mark.parametrize(
    ("profile", "before", "after"),
    [
        (
            "{runtime: x, macs_per_s: {int8: -1}}",
            "device.mine.macs_per_s.int8",
            ": must not be negative, got -1",
        ),
        ("{runtime: x}", "device.mine.macs_per_s", " is missing: "),
        ("{runtime: x, ram_byte: 1}", "Unknown key 'ram_byte' in device.mine", ". Did you mean 'ram_bytes'?"),
        ("5", "device.mine", ": expected the keys "),
    ],
)
def test_a_mistake_names_key_and_file(folder, profile, before, after):
    path = write(folder, f"mine: {profile}\n")
    with pytest.raises(ConfigError) as error:
        devices_of(config_of(folder, "device=mine"))
    assert f"{before} ({path}){after}" in str(error.value)


def test_a_profile_may_be_in_a_file_of_another_name(folder):
    path = write(folder, "one: {runtime: x, macs_per_s: {int8: 1.0e+9}}\ntwo: {runtime: x}\n", "lab")
    assert profile_file("two", [folder]) == path
    with pytest.raises(ConfigError, match=r"device\.two\.macs_per_s \(.*lab\.yaml\) is missing"):
        devices_of(config_of(folder, "device=lab"))


def test_a_value_from_the_command_line_is_not_the_files(folder):
    write(folder, "mine: {runtime: x, macs_per_s: {int8: 1.0e+9}}\n")
    with pytest.raises(ConfigError) as error:
        devices_of(config_of(folder, "device=mine", "device.mine.macs_per_s.int8=-3"))
    assert str(error.value) == "device.mine.macs_per_s.int8: must not be negative, got -3"


def test_a_profile_without_a_file_is_named_by_its_key():
    config = compose(["device=host"])
    wrong = replace(config, data={**config.data, "device": {"new": {"runtime": "x"}}})
    with pytest.raises(ConfigError, match=r"^device\.new\.macs_per_s is missing"):
        devices_of(wrong)


def test_no_device_is_refused():
    config = compose(["device=host"])
    with pytest.raises(ConfigError, match="at least one device"):
        devices_of(replace(config, data={**config.data, "device": None}))


def test_the_file_that_comes_first_is_the_one(folder):
    hidden = write(folder, "host: {runtime: x, macs_per_s: {int8: 1.0e+9}}\n", "host")
    found = catalogue([shipped(), folder])
    assert found.hidden == (hidden,)
    assert found.devices["host"].measured


def test_groups_hold_no_profiles_of_their_own(folder):
    write(folder, "defaults: [stm32l4r5, host]\n", "mine")
    found = catalogue([shipped(), folder])
    assert found.groups["mine"] == ("stm32l4r5", "host")
    assert "mine" not in found.devices


@pytest.mark.parametrize(("residual", "found"), [("mine.json", True), ("elsewhere.json", False)])
def test_a_correction_lies_beside_the_profile(folder, residual, found):
    write(folder, f"mine: {{runtime: x, macs_per_s: {{int8: 1.0e+9}}, residual: {residual}}}\n")
    (folder / "device/mine.json").write_text("{}")
    expected = str(folder / "device/mine.json") if found else residual
    assert devices_of(config_of(folder, "device=mine"))["mine"].residual == expected
    assert catalogue([folder]).devices["mine"].residual == expected

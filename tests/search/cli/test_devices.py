"""The `paredown-devices` command."""

import io
import json
import re

import pytest

from search.cli.device_tables import _bytes, _figures, listing, sheet
from search.cli.devices import OK, USAGE, run_command
from search.planning.config.device_files import catalogue
from search.planning.config.shipped import shipped
from search.report.console import PlainConsole

GOOD = """# @package device
# paredown device=my_board
my_board:
  description: a board of mine
  runtime: some runtime
  macs_per_s:
    int8: 1.0e+9
    float32:
      conv: 2.0e+8
      default: 1.0e+8
  ram_bytes: 64 KiB
  sources:
    macs_per_s:
      int8: {measured: with a stopwatch}
      float32: {stated: on the box}
    ram_bytes: {stated: on the box}
"""


@pytest.fixture
def mine(tmp_path):
    """A config folder with one profile, as a user would add it."""
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "my_board.yaml").write_text(GOOD)
    return tmp_path


@pytest.fixture
def devices(capsys):
    """Runs the command; returns its exit status, output and errors."""

    def run(*arguments):
        status = run_command([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def listed(out):
    return [line.split()[0] for line in out.splitlines() if line.startswith(" ") and line[1:2].strip()][2:]


def test_lists_every_profile_within_120_columns(devices):
    status, out, err = devices()
    assert (status, err) == (OK, "")
    assert max(map(len, out.splitlines())) <= 120
    names = listed(out)
    assert names == sorted(names)
    assert {"host", "stm32l4r5", "a100", "zu3eg"} <= set(names)
    assert len(names) >= 30
    assert f"{len(names)} profiles" in out
    assert "groups: accelerators" in out


def test_a_row_contains_limits_speed_power_error_and_tag(devices):
    _, out, _ = devices("--match", "stm32u575")
    row = next(line for line in out.splitlines() if "stm32u575 " in line)
    for text in ("NUCLEO-U575", "X-CUBE-AI 9.0", "768 KiB", "2 MiB", "23.2 mW", "modelled"):
        assert text in row
    assert re.search(r"i8 \d+-\d+ M .* \d+ %", row)


@pytest.mark.parametrize("width", [80, 120])
def test_a_profile_is_a_line_whatever_the_width(width):
    found = catalogue([shipped()])
    text = io.StringIO()
    PlainConsole(file=text, width=width).print(listing(found, sorted(found.devices), width))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= len(found.devices) + 12
    for name in found.devices:
        (row,) = [line for line in lines if line.split()[:1] == [name]]
        for size in filter(None, (found.devices[name].ram_bytes, found.devices[name].flash_bytes)):
            assert _bytes(size) in row


@pytest.mark.parametrize("width", [80, 120])
def test_a_sheet_keeps_to_the_width_and_says_the_same(width):
    found = catalogue([shipped()])
    for name in ("host", "stm32h743", "zu3eg"):
        text = io.StringIO()
        PlainConsole(file=text, width=width).print(sheet(found, name, width))
        assert max(map(len, text.getvalue().splitlines())) <= width
        words = " ".join(text.getvalue().split())
        assert found.devices[name].description.split()[0] in words
        assert all(figure in words for figure, *_ in _figures(found.devices[name]))


def test_match_compares_hardware_and_runtime_case_insensitively(devices):
    assert listed(devices("--match", "plumerai")[1]) == listed(devices("--match", "PLUMERAI")[1])
    assert "stm32f746_plumerai" in listed(devices("--match", "DISCO-F746")[1])


def test_lists_a_group_in_its_order(devices):
    names = listed(devices("--group", "fpgas")[1])
    assert names == ["xc7z020", "zu3eg", "zu7ev", "zu9eg", "kv260"]
    assert listed(devices("--group", "fpgas", "--match", "kria")[1]) == ["kv260"]


def test_shows_one_profile_with_every_figure_its_tag_and_its_source(devices, mine):
    status, out, err = devices("my_board", "--config-dir", mine)
    assert (status, err) == (OK, "")
    text = " ".join(out.split())
    assert "hardware a board of mine" in text
    assert "runtime some runtime" in text
    assert "use it paredown device=my_board" in text
    assert "macs_per_s.int8 any class: 1 G measured with a stopwatch" in text
    assert "macs_per_s.float32 conv: 200 M stated on the box any class: 100 M" in text
    assert "ram_bytes 64 KiB stated on the box" in text


def test_a_missing_source_is_reported(devices, mine):
    path = mine / "device" / "my_board.yaml"
    path.write_text(path.read_text().split("  sources:")[0])
    text = " ".join(devices("my_board", "--config-dir", mine)[1].split())
    assert "ram_bytes 64 KiB no source" in text
    assert "no source" in devices("--match", "my_board", "--config-dir", mine)[1]


def test_shows_parts_of_a_figure_that_are_given(devices):
    text = " ".join(devices("zu3eg")[1].split())
    assert "fabric.dsps 360" in text
    assert "fabric.clock_hz 200 M estimated" in text
    text = " ".join(devices("stm32l4r5_tflm")[1].split())
    assert "deployment.arena greedy" in text
    assert "deployment.in_place none" in text
    assert "deployment.patches" not in text


def test_json_holds_everything(devices, mine):
    status, out, _ = devices("my_board", "--config-dir", mine, "--json")
    found = json.loads(out)
    assert status == OK
    assert found["macs_per_s"]["float32"] == {"conv": 2e8, "default": 1e8}
    assert found["sources"]["macs_per_s.int8"] == {"tag": "measured", "text": "with a stopwatch"}
    assert found["sources"]["macs_per_s"]["tag"] == "stated"
    assert found["file"] == str(mine / "device" / "my_board.yaml")
    everything = json.loads(devices("--json")[1])
    assert len(everything) >= 30
    assert {"name", "groups", "ram_bytes", "error"} <= set(everything[0])
    assert "microcontrollers" in next(d for d in everything if d["name"] == "stm32l4r5")["groups"]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["stm32l5"], ["no device 'stm32l5'", "similar names: stm32l4r5"]),
        (["--group", "microcontroler"], ["no group 'microcontroler'", "similar names: microcontrollers"]),
        (["--group", "qqq"], ["no group 'qqq'", "known: accelerators"]),
        (["--match", "quantum"], ["--match quantum", "no device has this"]),
        (["--config-dir", "/nowhere"], ["--config-dir /nowhere", "/nowhere/device"]),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line_with_similar_names(devices, arguments, texts):
    status, out, err = devices(*arguments)
    assert status == USAGE
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    for text in texts:
        assert text in err


def test_an_unknown_option_is_refused(devices):
    status, _, err = devices("--nonsense")
    assert status == USAGE
    assert "--nonsense" in err


def test_an_invalid_profile_is_reported_with_file_and_key(devices, mine):
    path = mine / "device" / "my_board.yaml"
    path.write_text(path.read_text().replace("1.0e+9", "-1"))
    status, out, err = devices("--config-dir", mine)
    assert (status, out) == (USAGE, "")
    assert f"device.my_board.macs_per_s.int8 ({path}): must not be negative, got -1" in err


def test_a_file_that_hydra_would_never_use_is_reported(devices, mine):
    (mine / "device" / "stm32l4r5.yaml").write_text(GOOD.replace("my_board", "stm32l4r5"))
    status, out, err = devices("--config-dir", mine, "stm32l4r5")
    assert status == OK
    assert "X-CUBE-AI" in out
    assert f"{mine / 'device' / 'stm32l4r5.yaml'} is never used" in err

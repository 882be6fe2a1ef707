"""The command of a study composes the same study again, wherever its config came from."""

import shlex

import pytest

from search.api import compose
from search.cli import app
from search.planning.config.command import value_text

SPACES = [
    {"quantize": {"weight_bits": [4, 8]}},
    {"quantize": {"percentile": {"choices": [99.9, 1e-05, None]}, "keep_float": [[], ["/fc[12]*", "it's \\"]]}},
    {"recover": {"epochs": {"int": [1, 3], "when": "quantize.weight_bits == 4"}}, "quantize": {"scheme": "a: b, {c}"}},
    {"quantize": {"weight_bits": {"per_layer": {"conv[1]/*": [4, 8], "a b=c, 2": True}}}, "constraints": {}},
]  # fmt: skip


def composed_by_command_line(monkeypatch, command):
    """What `paredown` composes from a command, without running it."""
    found = []
    monkeypatch.setattr(app, "run_config", lambda config, console, began: found.append(config) or 0)
    program, *arguments = shlex.split(command)
    assert program == "paredown"
    assert app.run_command(arguments) == 0
    return found


@pytest.mark.parametrize(
    ("overrides", "space"),
    [(["seed=1"], space) for space in SPACES] + [(["experiment=mcu_har", "task.root=x"], SPACES[0])],
)
def test_a_space_from_python_is_in_the_command(monkeypatch, overrides, space):
    config = compose(overrides, space)
    assert config.data["space"] == space
    (again,) = composed_by_command_line(monkeypatch, config.command)
    assert again.data == config.data


def test_no_arguments_run_the_first_study(monkeypatch, capsys):
    (first,) = composed_by_command_line(monkeypatch, "paredown")
    assert first.data == compose(["experiment=tones_board"]).data
    assert first.command == "paredown experiment=tones_board"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("No arguments: running experiment=tones_board")
    assert "paredown init" in line


def test_any_argument_overrides_the_base(monkeypatch, capsys):
    (config,) = composed_by_command_line(monkeypatch, "paredown seed=3")
    assert config.data == compose(["seed=3"]).data
    assert config.data["study"]["name"] == "digits"
    assert not capsys.readouterr().out


def test_a_space_where_none_was_composed(monkeypatch):
    config = compose(["experiment=tabular", "tabular.path=x"], SPACES[0])
    assert composed_by_command_line(monkeypatch, config.command)[0].data == config.data


def test_the_config_dir_is_in_the_command(monkeypatch, tmp_path, capfd):
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text("quantize: {weight_bits: [4, 8]}\n")
    monkeypatch.chdir(tmp_path)
    (first,) = composed_by_command_line(monkeypatch, "paredown --config-dir . space=mine")
    assert f"--config-dir {tmp_path}" in first.command
    monkeypatch.chdir("/")
    (again,) = composed_by_command_line(monkeypatch, first.command)
    assert (again.data, again.command) == (first.data, first.command)
    (other,) = composed_by_command_line(
        monkeypatch, f"paredown space=mine 'hydra.searchpath=[file://{tmp_path}]'"
    )
    (again,) = composed_by_command_line(monkeypatch, other.command)
    assert again.data == first.data


def test_another_primary_config_is_in_the_command(monkeypatch, tmp_path):
    (tmp_path / "own.yaml").write_text("defaults: [config, _self_]\nstudy: {name: own}\n")
    (first,) = composed_by_command_line(
        monkeypatch, f"paredown --config-dir {tmp_path} --config-name own seed=2"
    )
    assert (first.study.name, first.seed) == ("own", 2)
    (again,) = composed_by_command_line(monkeypatch, first.command)
    assert again.data == first.data


def test_a_study_of_a_sweep_has_a_command_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    studies = composed_by_command_line(monkeypatch, "paredown --multirun seed=1,2 study.dir=out")
    assert [s.study.name for s in studies] == ["digits-seed=1", "digits-seed=2"]
    for study in studies:
        (again,) = composed_by_command_line(monkeypatch, study.command)
        assert again.data == study.data


def test_values_are_read_back_as_they_were():
    values = [None, True, 3, -2.5, 1e-9, "", "true", "a'b\"c\\\\", [[], {}], "${seed}"]
    found = compose([f"+space.quantize.x={value_text(values)}"]).data["space"]["quantize"]["x"]
    assert found == [*values[:-1], 0]

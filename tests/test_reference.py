"""The page of all configs, `conf/README.md`, says what the configs say."""

import runpy
import shlex
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from search.api import compose
from search.planning.config.group_files import files_of
from spaces.errors import ConfigError

ROOT = Path(__file__).parents[1]
COMMAND = "python .ci/reference.py"


@pytest.fixture(scope="module")
def reference():
    """The script's names."""
    return runpy.run_path(str(ROOT / ".ci/reference.py"), run_name="reference")


@pytest.fixture
def conf(tmp_path):
    """A copy of the configs."""
    return Path(shutil.copytree(ROOT / "conf", tmp_path / "conf"))


def test_the_reference_is_up_to_date(reference, capsys):
    assert reference["main"](["--check"]) == 0, f"{capsys.readouterr().out.strip()}: run {COMMAND}"


def test_an_outdated_reference_is_told_and_written_anew(reference, conf, capsys):
    (conf / "sampler/mine.yaml").write_text(
        "# paredown sampler=mine\n# It is | mine, `a_*` and _b_ <c>.\n_target_: a.B\nn: 3 # how many\n"
    )
    assert reference["main"](["--check"], conf) == 1
    assert capsys.readouterr().out.strip().endswith(f"is out of date: run {COMMAND}")
    assert reference["main"]([], conf) == 0
    assert reference["main"](["--check"], conf) == 0
    lines = (conf / "README.md").read_text().splitlines()
    assert "| `mine` | It is \\| mine, `a_*` and \\_b\\_ \\<c>. | `paredown sampler=mine` |" in lines
    assert "- **mine**: `n=3` how many" in lines


def test_a_group_without_a_sentence_is_refused(reference, conf):
    (conf / "group").mkdir()
    (conf / "group/a.yaml").write_text("a: 1\n")
    with pytest.raises(SystemExit, match="differ: group"):
        reference["page"](conf)


def test_every_option_is_in_the_reference_with_its_command(reference):
    text = (ROOT / "conf/README.md").read_text()
    for group in reference["CHOOSES"]:
        files = list((ROOT / "conf" / group).glob("*.yaml"))
        assert files, group
        section = text.split(f"\n## {group}\n")[1].split("\n## ")[0]
        for file in files:
            assert (
                f"| `device={file.stem}` |" in section
                if group == "device"
                else f"| `{file.stem}` |" in section
            ), file


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    widths = [
        line.replace("\\|", "").count("|") if line.startswith("|") else 0
        for line in (ROOT / "conf/README.md").read_text().splitlines()
    ]
    assert all(0 in (before, after) or before == after for before, after in pairwise(widths))


def missing(node, path=""):
    """Yields the paths of required keys that are not set."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from missing(value, f"{path}.{key}".strip("."))
    elif node == "???":
        yield path


@pytest.mark.slow
def test_the_command_of_every_option_is_complete(reference, tmp_path, monkeypatch):
    """It composes, and no required key is left open; commands with a class of the reader's cannot be tried."""
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for group in reference["CHOOSES"]:
        for file in files_of(group, [ROOT / "conf"]).values():
            if "my_" in file.command:
                continue
            try:
                left = list(missing(compose(shlex.split(file.command)[1:]).data))
            except ConfigError as error:
                left = [str(error)]
            wrong |= {file.command: left} if left else {}
    assert wrong == {}


def test_open_keys_are_found():
    assert list(missing({"a": {"b": "???", "c": 1}, "d": "???"})) == ["a.b", "d"]

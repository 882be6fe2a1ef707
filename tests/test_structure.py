"""The structure of the project as a whole: imports, folders, pinned dependencies."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from search.cli.app import FIRST_STUDY

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
    "search", "spaces", "conf", "evaluators", "tests", "notebooks",
}  # fmt: skip


def test_packages_import_in_one_direction():
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert " 0 broken" in run.stdout


def test_no_folder_has_too_many_files_and_no_imports_are_cyclic():
    script = [sys.executable, ROOT / ".ci/structure.py"]
    run = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({f"spaces/room/f{i}.py": "" for i in range(15)}, "spaces.room: 16 files, more than 15"),
        ({"spaces/room/a.py": "import spaces.room.b", "spaces/room/b.py": "import spaces.room.a"}, "circle inside"),
        ({"spaces/room/a.py": "import spaces.x.b", "spaces/x/__init__.py": "", "spaces/x/b.py": "import spaces.room.a"},
         "circle of folders"),
    ],
)  # fmt: skip
def test_the_structure_script_reports_the_problem(tmp_path, files, problem):
    for name, text in {"spaces/__init__.py": "", "spaces/room/__init__.py": "", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci/structure.py", tmp_path / ".ci")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert problem in run.stdout


def test_no_module_of_a_single_operating_system_is_imported():
    """`fcntl`, `resource`, `pwd`, ... are absent on Windows, on which the search must run."""
    found = subprocess.run(
        ["git", "grep", "-nE", r"^\s*(import|from) (fcntl|resource|pwd|grp|termios|msvcrt|winreg)\b", "--",
         "search", "spaces", "evaluators"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert found == ""


def test_the_top_level_has_no_other_files():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {line.split("/")[0] for line in tracked.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_the_lock_pins_every_dependency_exactly():
    lock = (ROOT / ".ci/requirements.lock").read_text()
    pinned = set(re.findall(r"^([A-Za-z0-9_.-]+)==", lock, flags=re.MULTILINE))
    pinned = {name.lower().replace("_", "-") for name in pinned}
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("dependencies = [")[1].split("\n]")[0]
    wanted = {m.lower() for m in re.findall(r'^\s+"([A-Za-z0-9_-]+)', block, flags=re.MULTILINE)} - {
        "xgboost"
    }
    assert wanted <= pinned
    assert "torch==2.13.0" in lock


def test_the_readme_has_two_install_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith(" && .venv/bin/paredown")
    (chosen,) = FIRST_STUDY
    assert (ROOT / "conf/experiment" / f"{chosen.removeprefix('experiment=')}.yaml").exists()
    assert "pytest" in commands[1]

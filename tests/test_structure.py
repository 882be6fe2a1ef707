"""What holds for the project as a whole."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
    "search", "spaces", "conf", "evaluators", "tests", "notebooks",
}  # fmt: skip


def test_rooms_import_one_way_only():
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "1 kept, 0 broken" in run.stdout


def test_nothing_else_lies_at_the_top():
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


def test_the_readme_opens_with_two_lines_to_paste():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("paredown")
    assert "pytest" in commands[1]

"""What the rooms' READMEs say works: their snippets are the plug-ins of one study, and pass their conformance tests."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    "evaluators", "evaluators/devices", "evaluators/task/boxes", "evaluators/task/tasks", "search/executors", "search/knowledge", "search/samplers",
    "search/tracking", "spaces/architectures", "spaces/models", "spaces/pruning/criteria", "spaces/pruning/tokens",
    "spaces/quantization/formats", "spaces/quantization/rounding", "spaces/stages",
)  # fmt: skip
BLOCK = re.compile(r"```(python|yaml|bash)\n(.*?)```", re.DOTALL)
ALL_AT_ONCE = {
    "stage": "[prune,export,my_stage]",
    "+space.prune.criterion": "[my_criterion,fpgm]",
    "+space.prune.ratio": "[0.0,0.25]",
    "device": "my_board",
    "objective": "accuracy_size",
    "study.n_trials": "3",
    "study.report": "false",
    "cache_dir": "cache",
}
"""Overrides where those of two rooms exclude each other, and what keeps the study short."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of all READMEs."""
    made = tmp_path_factory.mktemp("user")
    for kind, text in blocks():
        if kind != "bash":
            path = made / text.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.split("\n", 1)[1])
    return made


def blocks():
    """Yields the kind and the text of every block of code."""
    for room in ROOMS:
        yield from BLOCK.findall((ROOT / room / "README.md").read_text())


def run(folder, *command):
    """Runs Python in the folder; returns what it prints."""
    env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    ran = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_every_readme_with_a_plug_in_is_read():
    with_snippets = {
        str(path.parent.relative_to(ROOT))
        for package in ("spaces", "evaluators", "search")
        for path in (ROOT / package).rglob("README.md")
        if BLOCK.search(path.read_text())
    }
    assert with_snippets == {*ROOMS, "search/allocators"}  # run by tests/search/allocators/test_readme.py


@pytest.mark.slow
def test_plug_ins_of_the_readmes_run_in_one_study(folder):
    words = [word for kind, text in blocks() if kind == "bash" for word in shlex.split(text)[1:]]
    overrides = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("space="))
    overrides |= ALL_AT_ONCE
    run(
        folder,
        "-m",
        "search",
        "--config-dir",
        "conf_dir",
        "space=my_space",
        *map("=".join, overrides.items()),
    )
    study = folder / "outputs/digits"
    with (study / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    for column in (
        "knob.my_stage.text", "metric.n_nodes", "metric.my_metric", "seconds.my_executor", "cost.my_board.latency_ms"
    ):  # fmt: skip
        assert all(row[column] for row in rows), column
    assert "my_criterion" in {row["knob.prune.criterion"] for row in rows}
    config = (study / "config.yaml").read_text()
    for name in ("my_sampler.MySampler", "my_model.MyModel", "my_task.MyTask", "my_knowledge.MyKnowledge"):
        assert f"my_plugins.{name}" in config
    assert len((folder / "my_tracker.log").read_text().splitlines()) == len(rows)


@pytest.mark.slow
def test_a_task_whose_labels_are_no_classes_runs_from_the_readme(folder):
    (command,) = [text for kind, text in blocks() if kind == "bash" and "task=my_angles" in text]
    overrides = [word for word in shlex.split(command)[2:] if "=" in word]
    short = [
        "study.name=angles",
        "study.n_trials=3",
        "tracker=none",
        "objective=accuracy_size",
        "cache_dir=cache",
    ]
    printed = run(folder, "-m", "search", "--config-dir", "conf_dir", *overrides, *short)
    assert "test angle error" in printed
    with (folder / "outputs/angles/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["metric.angle_error_low"]) <= float(row["metric.angle_error"]) for row in rows)


@pytest.mark.slow
def test_a_family_of_architectures_is_searched_from_the_readme(folder):
    (command,) = [text for kind, text in blocks() if kind == "bash" and "model=my_family" in text]
    overrides = [word for word in shlex.split(command)[2:] if "=" in word]
    short = ["study.name=family", "study.n_trials=3", "tracker=none", "study.report=false", "cache_dir=cache"]
    run(folder, "-m", "search", "--config-dir", "conf_dir", *overrides, *short)
    with (folder / "outputs/family/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["knob.architecture.width"] in ("4", "8", "16") for row in rows)


@pytest.mark.slow
def test_their_conformance_tests_pass(folder):
    run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "my_tests")

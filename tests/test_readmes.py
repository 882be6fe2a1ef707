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
LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")
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


def pages():
    """Returns every page of documentation that git knows of."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def anchors(text):
    """Returns what GitHub makes of headings for links."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(page):
    """Yields links of a page that lead nowhere; those to other sites are not followed."""
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())
        ):
            yield link


def test_links_of_all_pages_lead_to_something():
    assert len(pages()) > len(ROOMS)
    assert {str(page.relative_to(ROOT)): links for page in pages() if (links := list(broken(page)))} == {}


def test_every_notebook_is_in_the_table_and_in_the_readme():
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"]({notebook.name})" in (ROOT / "notebooks/README.md").read_text()
        assert f"](notebooks/{notebook.name})" in (ROOT / "README.md").read_text()


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "other.md").write_text("## Two words, task/data\n")
    good = "[a](other.md) [b](other.md#two-words-taskdata) [c](#top) [d](https://example.org/x)"
    (tmp_path / "page.md").write_text(f"# Top\n{good} [e](gone.md) [f](#gone) [g](other.md#gone)")
    assert list(broken(tmp_path / "page.md")) == ["gone.md", "#gone", "other.md#gone"]


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
    study = folder / "outputs/my_task"  # named after its task: its network has no file
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

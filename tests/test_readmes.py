"""What the rooms' READMEs say works: their snippets are the plug-ins of one study."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("search/samplers", "search/executors", "evaluators", "evaluators/devices", "spaces/stages")
BLOCK = re.compile(r"```(python|yaml|bash)\n(.*?)```", re.DOTALL)


def test_plug_ins_of_the_readmes_run_in_one_study(tmp_path):
    overrides = {}
    for room in ROOMS:
        for kind, text in BLOCK.findall((ROOT / room / "README.md").read_text()):
            if kind == "bash":
                words = shlex.split(text)[1:]
                overrides |= dict(word.split("=", 1) for word in words if "=" in word)
                continue
            path = tmp_path / text.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.split("\n", 1)[1])
    words = [f"{key}={value}" for key, value in overrides.items()]
    own = ["tracker=none", "knowledge=none", "cache_dir=cache", "study.n_trials=2", "objective=accuracy_size"]
    command = [sys.executable, "-m", "search", "--config-dir", "conf_dir", *words, *own, "study.report=false"]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    folder = tmp_path / "outputs/digits"
    with (folder / "trials.csv").open() as file:
        columns = next(csv.reader(file))
    for threshold in (
        "knob.my_stage.text",
        "metric.n_nodes",
        "seconds.my_executor",
        "cost.my_board.latency_ms",
    ):
        assert threshold in columns
    config = (folder / "config.yaml").read_text()
    assert "my_plugins.my_sampler.MySampler" in config

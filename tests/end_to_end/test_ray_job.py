"""A study as a job of a Ray cluster that asks for a token, from a folder with nothing but a user's own evaluator in it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

EVALUATOR = """
import search
from evaluators.base import Evaluation, Evaluator, Measurement
from my_help import SCALE


class NodeCount(Evaluator):
    name = "node_count"

    def evaluate(self, artifact, context):
        n_nodes = len(artifact.proto().graph.node)
        sent = "py_modules_files" in search.__file__
        return Evaluation((
            Measurement("n_nodes", SCALE * n_nodes, "nodes", "measured"),
            Measurement("code_was_sent", float(sent), "", "measured"),
        ))
"""
CONFIG = """
# @package evaluator
node_count:
  _target_: my_evaluator.NodeCount
"""


@pytest.fixture
def cluster(ray_cluster):
    pytest.importorskip("ray.dashboard.optional_deps", reason="needs ray[default]")
    return ray_cluster(token=True, dashboard=True)


@pytest.fixture
def folder(tmp_path, digits_onnx):
    made = tmp_path / "fresh"
    (made / "conf_dir" / "evaluator").mkdir(parents=True)
    (made / "conf_dir" / "evaluator" / "node_count.yaml").write_text(CONFIG)
    (made / "my_evaluator.py").write_text(EVALUATOR)
    (made / "my_help.py").write_text("SCALE = 2\n")
    shutil.copy(digits_onnx, made / "digits.onnx")
    return made


def test_a_job_runs_from_a_fresh_folder(cluster, folder, cache_dir, tmp_path):
    commands = Path(sys.executable).parent
    ran = subprocess.run(
        [
            commands / "ray", "job", "submit", "--address", f"http://127.0.0.1:{cluster.dashboard_port}",
            "--working-dir", ".", "--", commands / "paredown", "--config-dir", "conf_dir", "executor=ray",
            "executor.address=auto", "trusted_modules=[my_evaluator]", "evaluator=[accuracy,cost,node_count]",
            "model=onnx", "model.checkpoint=digits.onnx", "sampler=random", "knowledge=none", "study.n_trials=3",
            "evaluator.accuracy.stop_early=false", "tracker=none", f"cache_dir={cache_dir}", f"study.dir={tmp_path / 'study'}", "device=stm32h743",
        ],
        cwd=folder, env=os.environ | cluster.environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    rows = pd.read_csv(tmp_path / "study" / "trials.csv")
    assert len(rows) == 3
    assert set(rows["state"]) <= {"complete", "infeasible"}
    assert (rows["metric.n_nodes"] % 2 == 0).all()
    assert (rows["metric.code_was_sent"] == 1).all()  # nothing had to be installed on the nodes
    assert json.loads((tmp_path / "study" / "summary.json").read_text())["n_failed"] == 0

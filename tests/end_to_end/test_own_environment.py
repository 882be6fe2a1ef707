"""A user's own environment, in a module of theirs: from the command line to the front."""

import pandas as pd
import pytest

ENVIRONMENT = """
import numpy as np


class Balance:
    n_actions = 2

    def __init__(self, steps=10, broken=False):
        self.steps, self.broken = steps, broken

    def reset(self, seed):
        self.rng, self.n = np.random.default_rng(seed), 0
        self.angle = self.rng.normal()
        return [self.angle, self.rng.normal()]

    def step(self, action):
        self.n += 1
        if self.broken and self.n == 2:
            return self.angel
        self.angle += 0.3 * (2 * action - 1) + 0.1 * self.rng.normal()
        return [self.angle, self.rng.normal()], -abs(self.angle), self.n == self.steps

    def advice(self):
        return int(self.angle < 0)
"""


@pytest.fixture
def own(paredown, tmp_path, monkeypatch):
    (tmp_path / "own_control.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*more):
        return paredown(
            "task=episodic", "task.environment._target_=own_control.Balance", "trusted_modules=[own_control]", "model=mlp",
            "model.n_classes=2", "model.input_shape=[2]", "model.epochs=2", "model.hidden=[8]", "device=stm32h743_tflm",
            "evaluator=[accuracy,cost]", "objective=accuracy_size", "sampler=random", "knowledge=none", "study.n_trials=2",
            "study.name=own", "task.validation=20", "task.test=20", "task.train=200", "task.calibration=32",
            "objective.constraints.drop.max=100", *more,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    "settings",
    [
        [],
        pytest.param(["stage=[prune,recover,export,quantize]", "space=prune_quantize", "space.recover.epochs=1"], marks=pytest.mark.slow),
    ],
    ids=["quantize", "recover"],
)  # fmt: skip
def test_an_environment_of_a_module_of_ones_own(own, tmp_path, settings):
    ran = own("+task.environment.steps=12", *settings)
    assert ran.status == 0, ran.err
    rows = pd.read_csv(tmp_path / "outputs/own/trials.csv")
    assert set(rows["state"]) == {"complete"}
    assert (rows["metric.return"] < 0).all()
    assert "metric.agreement" in rows
    front = pd.read_csv(
        tmp_path / "outputs/own/pareto.csv"
    )  # it may be the float model alone: this one is tiny
    assert front["metric.test_return"].notna().all()
    report = (tmp_path / "outputs/own/report.html").read_text()
    assert "part of them gives no bound of return, because its scores have no bounds" in report


def test_an_exception_is_one_message(own):
    ran = own("+task.environment.broken=true")
    assert ran.status == 2
    assert (
        "task.environment: Balance, seed 0, step 2: AttributeError: 'Balance' object has no attribute 'angel'"
        in ran.err
    )
    assert "(own_control.py, line 19)" in ran.err

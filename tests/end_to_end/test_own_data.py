"""A user's own dataset, in a module of theirs: from the command line to the front."""

import numpy as np
import pandas as pd
import pytest

DATASETS = """
import numpy as np
import torch
from torch.utils.data import Dataset


class Sines(Dataset):
    def __init__(self, n=200, broken=False):
        if n < 1:
            raise RuntimeError("no sines")
        self.n, self.broken = n, broken

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if self.broken and i == 5:
            return {}["missing"]
        x = torch.from_numpy(np.random.default_rng(i).normal(size=4))
        return x, torch.sin(x).sum()


def sines(n, copied):
    for i in [copied, *range(1001, 1000 + n)]:
        x = np.random.default_rng(i).normal(size=4)
        yield x, np.sin(x).sum()


def secret():
    raise SystemExit("called")
"""


@pytest.fixture
def own(paredown, tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(DATASETS)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*more, trusted="[own_data]"):
        return paredown(
            "task=regression", "task/data=dataset", f"trusted_modules={trusted}", "model=mlp", "model.n_classes=1",
            "model.input_shape=[4]", "model.epochs=3", "device=stm32h743_tflm", "evaluator=[accuracy,cost]",
            "objective=accuracy_size", "sampler=random", "knowledge=none", "study.n_trials=2", "study.name=own",
            "objective.constraints.drop.max=100", *more,
        )  # fmt: skip

    return run


def test_a_dataset_of_a_module_of_ones_own(own, tmp_path):
    ran = own(
        "task.data.dataset._target_=own_data.Sines", "+task.data.dataset.n=150", "task.validation=20", "task.calibration=10",
        "task.data.test={_target_: own_data.sines, n: 30, copied: 5}", "task.data.memory_bytes=1 kB",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    rows = pd.read_csv(tmp_path / "outputs/own/trials.csv")
    assert set(rows["state"]) == {"complete"}
    assert np.isfinite(rows["metric.rmse"]).all()
    report = (tmp_path / "outputs/own/report.html").read_text()
    assert "1 of 30 test examples is an exact copy of" in report


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["task.data.dataset._target_=own_data.Sines", "+task.data.dataset.broken=true"],
         "own_data.Sines, item 5: KeyError: 'missing' (own_data.py, line 18)"),
        (["task.data.dataset._target_=own_data.Sines", "+task.data.dataset.n=0"],
         "task.data.dataset: own_data.Sines raises RuntimeError: no sines"),
        (["task.data.dataset._target_=own_data.Sines", "+task.data.dataset.m=0"], "task.data.dataset"),
        (["task.data.dataset._target_=own_data.DATA"], "own_data"),
        (["task.data.dataset._target_=builtins.list"], "is outside the trusted packages"),
        ([], "task.data.dataset._target_"),
    ],
)  # fmt: skip
def test_mistakes_are_one_message(own, settings, message):
    ran = own(*settings)
    assert ran.status == 2
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_module_that_is_not_trusted_is_not_imported(own):
    ran = own("task.data.dataset._target_=own_data.secret", trusted="[]")
    assert ran.status == 2
    assert "outside the trusted packages" in ran.err

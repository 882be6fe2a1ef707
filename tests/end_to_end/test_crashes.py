"""Code that kills its process, in a stage or an evaluator: the study ends, and its table says which candidates did it."""

import sys

import pandas as pd
import pytest

PLUGINS = '''
import ctypes
import faulthandler
import os
import signal

from evaluators.base import Evaluation, Evaluator, Measurement
from spaces.quantization.quantize import QuantizeStage


def crash():
    faulthandler.disable()
    ctypes.string_at(0)


class CrashingStage(QuantizeStage):
    """Dies where weights have four bits."""

    def apply(self, artifact, values, context):
        if values["weight_bits"] == 4:
            crash()
        return super().apply(artifact, values, context)


class Odd(Evaluator):
    """Does what `odd` says, except to the float model."""

    name = "odd"

    def __init__(self, odd: str = "crash"):
        self.odd = odd

    def evaluate(self, artifact, context):
        if artifact.digest == context.reference.artifact.digest:
            return Evaluation((Measurement("oddness", 0.0, "", "measured"),))
        if self.odd == "crash":
            crash()
        if self.odd == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.odd == "exit":
            raise SystemExit(0)
        value = float("nan") if self.odd == "not_a_number" else {"set": {1}, "text": "many"}[self.odd]
        return Evaluation((Measurement("oddness", value, "", "measured"),))
'''
STAGE = "stage.quantize._target_=odd_plugins.CrashingStage"
EVALUATOR = "+evaluator.odd._target_=odd_plugins.Odd"


@pytest.fixture
def study(paredown, digits_onnx, tmp_path, monkeypatch):
    """Runs a study with the plug-ins above; returns its command and its table."""
    (tmp_path / "odd_plugins.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_plugins", raising=False)

    def run(*overrides):
        ran = paredown(
            "model=onnx", f"model.checkpoint={digits_onnx}", "device=[stm32h743]", "objective=accuracy_size",
            "trusted_modules=[odd_plugins]", "knowledge=none", "study.name=odd", *overrides,
        )  # fmt: skip
        assert ran.status in (0, 3), ran.err
        return ran, pd.read_csv(tmp_path / "outputs/odd/trials.csv", keep_default_na=False)

    return run


def test_a_stage_that_crashes_costs_its_candidates_only(study, small_space):
    """Low-fidelity evaluations, which build candidates before their trials, meet the crash, too."""
    ran, table = study(STAGE, *small_space, "executor=worker", "study.n_trials=6")
    assert ran.status == 0
    assert len(table) == 6
    failed = table["state"] == "failed"
    assert (table["knob.quantize.weight_bits"] == 4).tolist() == failed.tolist()
    assert table["reason"][failed].str.contains("SIGSEGV").all()


@pytest.mark.parametrize(
    "executor", ["worker", *(pytest.param(e, marks=pytest.mark.slow) for e in ("serial", "ray"))]
)
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        pytest.param("exit", "sys.exit(0)", marks=pytest.mark.slow),
        pytest.param("not_a_number", "", marks=pytest.mark.slow),
        ("set", "must be a number, not a set"),
        pytest.param("text", "must be a number, not a str", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_evaluator_that_returns_nonsense_fails_its_trials(study, executor, odd, reason):
    ran, table = study(EVALUATOR, f"+evaluator.odd.odd={odd}", f"executor={executor}", "study.n_trials=2")
    assert len(table) == 2
    if odd == "not_a_number":  # no objective needs it
        assert ran.status == 0
        return
    assert ran.status == 3
    assert (table["state"] == "failed").all()
    assert all(reason in text for text in table["reason"])


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["worker", "ray"])
@pytest.mark.parametrize("odd", ["crash", "kill"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_evaluator_that_kills_its_process_fails_its_trials(study, executor, odd):
    ran, table = study(EVALUATOR, f"+evaluator.odd.odd={odd}", f"executor={executor}", "study.n_trials=2")
    assert ran.status == 3
    assert table["state"].tolist() == ["failed", "failed"]
    assert table["reason"].str.contains("died").all()

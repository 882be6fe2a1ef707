"""What the plan of a compression study notes."""

import contextlib

import pytest

from evaluators.task.statistics.intervals import wilson_interval
from search.api import compose
from search.planning import plan_compression
from search.planning.session import prepare


@pytest.mark.parametrize("devices", ["[host,stm32h743]", "[stm32h743]"])
@pytest.mark.parametrize("saturate", [True, False])
def test_kernels_that_saturate_are_noted_where_they_decide_the_accuracy(lab, monkeypatch, saturate, devices):
    monkeypatch.setattr(plan_compression, "integer_kernels_saturate", lambda: saturate)
    plan, _ = lab.planned(f"saturate_{saturate}_{len(devices)}", "one", f"device={devices}")
    noted = any("8-bit kernels" in note for note in plan.notes)
    assert noted == (saturate and "host" in devices)


def test_intervals_of_both_splits_allow_for_groups(tmp_path):
    """Three speakers judge the search, four the test split: as the float model's intervals and a note say."""
    given = [
        "model=sound_cnn", "task=sound_classes", "task/data=tones", "model.n_classes=6", "model.input_shape=[1,24,20]",
        "task.data.features={window: 480, hop: 320, mels: 20}", "model.epochs=1",
        "task.data.speakers=12", "task.data.sounds=2", "task.calibration=2", "task.validation=3", "task.test=4",
        f"cache_dir={tmp_path / 'cache'}", "evaluator=[accuracy,cost]", "objective=accuracy_size", "device=[stm32h743]",
        "tracker=none", "knowledge=none",
    ]  # fmt: skip
    with contextlib.chdir(tmp_path):
        plan = prepare(compose(given), lambda text: None).plan
    note = "the 36 validation examples come from 3 groups, which intervals take for alike within themselves"
    assert note in plan.notes
    on_test = plan.runner._re_evaluator.on_test(None)
    for name, n, measured in (("top1", 36, plan.baseline), ("test_top1", 48, on_test)):
        values = {m.name: m.value for m in measured}
        low, high = wilson_interval(n * values[name] / 100, n)
        assert values[f"{name}_high"] - values[f"{name}_low"] > 1.2 * 100 * (high - low)

import re
from dataclasses import replace

import numpy as np
import pytest

from evaluators.testing import model_from_text, tiny_model
from search.record.results import Constraint
from search.report.page.testing import read_page
from search.report.sections.shipping.cards import section
from search.report.sections.shipping.deploy import deploy
from search.report.sections.shipping.rivals import runner_up, why_not
from search.report.sections.shipping.targets import targets
from search.report.testing import fake_results

LATENCY, TOP1, SIZE = "cost.host.latency_ms", "metric.top1", "cost.host.weight_bytes"


@pytest.fixture
def results(tmp_path):
    return fake_results(tmp_path)


def with_model(results, number, model):
    path = results.model_path(number)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.onnx_bytes)
    return results


# -- limits --------------------------------------------------------------------------------------------------


def test_a_limit_says_what_is_used_and_what_is_left(results):
    record = results.trial(results.picks[1].number)
    used = record.values()["cost.stm32h743.weight_bytes"]
    text = read_page(targets(results, record, "stm32h743")).text
    assert f"{used / 1024:.3g} KiB of 87.9 KiB" in text
    assert f"{(90_000 - used) / 1024:.3g} KiB left" in text
    assert f"at least 94.00 pp: {record.values()[TOP1] - 94:.2f} pp above" in text


def test_limits_of_other_devices_are_not_shown(results):
    assert "KiB" not in targets(results, results.trial(results.best), "host")


def test_bars_are_as_long_as_what_is_used(results):
    record = results.trial(results.best)
    value = record.values()[LATENCY]
    limited = replace(results, constraints=(Constraint("fast", LATENCY, "max", 4 * value),))
    assert 'style="width:25.0%"' in targets(limited, record, "host")
    broken = replace(results, constraints=(Constraint("fast", LATENCY, "max", value / 2),))
    drawn = targets(broken, record, "host")
    assert "too much" in drawn
    assert 'class="bar over"' in drawn
    assert "--at:50.0%" in drawn


def test_what_may_not_occur_has_no_bar(results):
    limited = replace(results, constraints=(Constraint("none", "metric.top1_drop", "max", 0.0),))
    drawn = targets(limited, results.trial(results.best), "host")
    assert "none allowed" in drawn
    assert 'class="bar' not in drawn


def test_memories_of_the_device_are_shown_unless_they_are_limited(results):
    profile = {"device": {"host": {"flash_bytes": "128 KiB"}}}
    extra = replace(results.trials[0].measurements[-1], name="flash_bytes", device="host", value=32 * 1024.0)
    record = replace(
        results.trial(results.best), measurements=(*results.trial(results.best).measurements, extra)
    )
    text = read_page(targets(replace(results, config=profile), record, "host")).text
    assert "flash what the device has32 KiB of 128 KiB, 96 KiB left" in text
    limited = replace(
        results, config=profile, constraints=(Constraint("f", "cost.host.flash_bytes", "max", 1e6),)
    )
    assert "what the device has" not in targets(limited, record, "host")


def test_a_profile_of_another_version_is_passed_over(results):
    profile = {"device": {"host": {"flash_bytes": "much"}}}
    extra = replace(results.trials[0].measurements[-1], name="flash_bytes", device="host", value=1.0)
    record = replace(results.trial(results.best), measurements=(extra,))
    assert targets(replace(results, config=profile, constraints=()), record, "host") == ""


# -- the runner-up -------------------------------------------------------------------------------------------


def test_the_runner_up_has_the_next_cost_on_the_device(results):
    number = results.picks[0].number
    others = {n: results.trial(n).values()[LATENCY] for n in results.front if n != number}
    assert runner_up(results, number, "host").number == min(others, key=others.get)
    assert runner_up(replace(results, front=(number,)), number, "host") is None


def test_why_it_is_not_the_next_names_both_figures(results):
    pick = results.trial(results.picks[0].number)
    rival = runner_up(results, pick.number, "host")
    text = why_not(results, pick, rival, "host")
    ours, theirs = pick.values()[LATENCY], rival.values()[LATENCY]
    word = "slower" if theirs > ours else "faster"
    assert word in text
    assert f"{theirs:.3g} ms against {ours:.3g} ms" in text
    assert "stm32h743" not in text


@pytest.mark.parametrize(
    ("factor", "told"),
    [(1.04, "4 % slower"), (3.0, "3× slower"), (0.5, "2× faster"), (1.0, "the same latency")],
)
def test_differences_are_told_as_shares_or_as_factors(results, factor, told):
    pick = results.trial(results.best)
    changed = tuple(
        replace(m, value=m.value * factor) if m.column == LATENCY else m for m in pick.measurements
    )
    assert told in why_not(results, pick, replace(pick, number=99, measurements=changed), "host")


# -- deployment ----------------------------------------------------------------------------------------------


def test_the_snippet_runs(results, monkeypatch):
    number = results.best
    with_model(results, number, tiny_model())
    text = deploy(results, number, "host")
    code = re.search(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL).group(1)
    monkeypatch.chdir(results.folder)
    names: dict = {}
    exec(code.replace("&quot;", '"').replace("&#x27;", "'"), names)
    assert isinstance(names["output"], np.ndarray)


def test_the_contract_names_inputs_with_layout_and_outputs(results):
    with_model(results, results.best, tiny_model())
    text = read_page(deploy(results, results.best, "host")).text
    assert "input, float32, batch × 3 × 8 × 8, NCHW: batch, channels, height, width" in text
    assert "the index of the largest value is the class" in text
    assert "xxd -i" in text  # the fake device is not said to be the machine that timed it


def test_the_range_of_a_quantized_input_is_that_of_its_quantizer(results):
    text = """a (float[n, 4] input) => (float[n, 4] output) {
        q = QuantizeLinear (input, s, z)
        output = DequantizeLinear (q, s, z)
    }"""
    model = model_from_text(text, {"s": np.float32(0.5), "z": np.uint8(55)})
    with_model(results, results.best, model)
    assert (
        "values from −27.5 to 100; the first quantizer clips"
        in read_page(deploy(results, results.best, "host")).text
    )
    with_model(results, results.best, tiny_model())
    assert "first quantizer" not in deploy(results, results.best, "host")


def test_the_task_says_how_inputs_are_made(results):
    with_model(results, results.best, tiny_model())
    task = {"_target_": "evaluators.task.tasks.classification.digits.DigitsTask"}
    told = {"scaling": "(x − mean) / std, mean 0.5, std 2", "classes": "0 <cat>, 1 dog"}
    changed = replace(results, config={"task": task}, preparation=told)
    text = read_page(deploy(changed, results.best, "host")).text
    assert "taskRecognises handwritten digits of 8x8 pixels, 17 grey levels, scaled to [0, 1]scaling" in text
    assert "(x − mean) / std, mean 0.5, std 2" in text
    assert "classes0 <cat>, 1 dog" in text


@pytest.mark.parametrize(
    "target", ["os.path.join", "evaluators.task.tasks.nothing.Here", "", "evaluators.task.tasks.x"]
)
def test_other_tasks_are_not_imported(results, target):
    with_model(results, results.best, tiny_model())
    assert "<dt>task" not in deploy(
        replace(results, config={"task": {"_target_": target}}), results.best, "host"
    )


def test_a_file_that_is_no_model_is_passed_over(results):
    path = results.model_path(results.best)
    path.parent.mkdir()
    path.write_bytes(b"\xff" * 40)
    assert deploy(results, results.best, "host") == ""


# -- cards ---------------------------------------------------------------------------------------------------


def test_each_device_has_a_card_with_the_float_model_the_pick_and_the_next(results):
    body = section(results).body
    assert body.count("<article>") == len(results.picks)
    assert body.count("<small>pick, and change from float</small>") == len(results.picks)
    assert body.count("<small>next</small>") == len(results.picks)


def test_the_float_model_as_the_pick_has_no_column_for_itself_twice(results):
    class WithFloat(type(results)):
        def trial(self, number):
            return (
                self._by_number[number]
                if number >= 0
                else replace(self._by_number[results.best], number=-1, details={})
            )

    kept = WithFloat(
        **{
            **vars(results),
            "front": (-1, *results.front),
            "best": -1,
            "picks": (replace(results.picks[0], number=-1),),
        }
    )
    page = read_page(section(kept).body)
    assert page.rows[0][1] == "float modelpick"
    assert "the float model" in page.text


def test_without_a_feasible_trial_the_nearest_miss_is_shown(tmp_path):
    found = section(fake_results(tmp_path, 24, top1_min=101.0))
    assert found.title == "The nearest miss"
    assert "below" in found.body
    assert section(fake_results(tmp_path, 0)) is None

from dataclasses import replace

import pytest

from evaluators.base import Measurement
from evaluators.task.guess import GUESSED
from search.record.results import Constraint
from search.report.findings.health import checks
from search.report.sections.health import section
from search.report.testing import fake_results, hostile_results


def found(results):
    return {check.name: check for check in checks(results)}


def with_baseline(results, **values):
    """Sets measurements of the float model, in per cent."""
    kept = [m for m in results.baseline if m.name not in values]
    return replace(
        results, baseline=(*kept, *(Measurement(n, v, "%", "measured") for n, v in values.items()))
    )


def scored(results, low, value, high, test_low, test_value, test_high):
    return with_baseline(
        results, top1=value, top1_low=low, top1_high=high,
        test_top1=test_value, test_top1_low=test_low, test_top1_high=test_high,
    )  # fmt: skip


@pytest.fixture
def results(tmp_path):
    return fake_results(tmp_path)


@pytest.mark.parametrize(
    ("figures", "status"),
    [
        (
            (99.2, 99.6, 99.9, 90.0, 91.7, 93.0),
            "warning",
        ),  # CIFAR-10 with a validation split out of the training data
        ((91.0, 93.0, 95.0, 90.0, 91.7, 93.0), "ok"),
        ((80.0, 81.0, 82.0, 90.0, 91.7, 93.0), "ok"),  # worse on validation is no leak
    ],
)
def test_a_float_model_far_better_on_validation_was_trained_on_it(results, figures, status):
    check = found(scored(results, *figures))["validation leak"]
    assert check.status == status
    assert ("trained on the validation" in check.text) == (status == "warning")
    assert bool(check.next_step) == (status == "warning")


def test_of_a_loss_the_lower_one_is_better(results):
    lower = tuple(replace(o, direction="minimize") for o in results.objectives)
    leaking = scored(results, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0)
    assert found(leaking)["validation leak"].status == "ok"
    assert found(replace(leaking, objectives=lower))["validation leak"].status == "warning"


def test_what_a_given_checkpoint_leaves_open_is_said(results):
    same = scored(results, 91.0, 93.0, 95.0, 90.0, 91.7, 93.0)
    given = replace(same, config={**same.config, "model": {"checkpoint": "net.pt"}})
    assert "a smaller leak would not show" in found(given)["validation leak"].text
    assert "checkpoint" not in found(same)["validation leak"].text


def test_without_a_test_split_nothing_is_said_of_a_leak(results):
    assert "validation leak" not in found(results)


def test_copies_that_the_task_found_are_a_leak(results):
    note = "3 of 300 validation examples are exact copies of train examples, which training has seen"
    assert found(replace(results, notes=(note,)))["validation leak"].status == "warning"


def test_a_float_model_that_is_no_better_than_a_guess_is_told(results):
    note = f"the float model's top1 on validation, 4.2 %, is {GUESSED} (20 %): are the labels those of the training?"
    told = found(replace(results, notes=(note,)))["float model"]
    assert (told.status, told.text[:15]) == ("warning", "The float model")
    assert "float model" not in found(results)


@pytest.mark.parametrize(("half", "status"), [(0.2, "ok"), (0.9, "warning")])
def test_the_interval_has_to_be_narrower_than_the_limit_on_the_drop(results, half, status):
    limit = Constraint("drop", "metric.top1_drop", "max", 0.5)
    drops = with_baseline(results, top1_drop=0.0, top1_drop_low=-half, top1_drop_high=half)
    trials = tuple(
        replace(t, measurements=tuple(m for m in t.measurements if "_drop_" not in m.name))
        for t in drops.trials
    )
    check = found(replace(drops, trials=trials, constraints=(limit,)))["number of examples"]
    assert check.status == status
    assert ("3.2 times as many" in check.next_step) == (status == "warning")  # (0.9 / 0.5)^2


@pytest.mark.parametrize(("half", "status"), [(0.4, "ok"), (90.0, "warning")])
def test_a_metric_in_which_no_trial_differs_from_float_is_saturated(results, half, status):
    def widened(measurement, drop):
        ends = {"top1_drop_low": drop - half, "top1_drop_high": drop + half}
        return replace(measurement, value=ends.get(measurement.name, measurement.value))

    trials = tuple(
        replace(
            t, measurements=tuple(widened(m, t.values().get("metric.top1_drop", 0.0)) for m in t.measurements)
        )
        for t in results.trials
    )
    assert found(replace(results, trials=trials))["saturated metric"].status == status


def test_rivals_of_a_pick_are_noise(results):
    first, *others = results.picks
    close = replace(results, picks=(replace(first, rivals=(results.front[0],)), *others))
    check = found(close)["noise against differences"]
    assert check.status == "warning"
    assert f"trial {results.front[0]}" in check.text


def modelled_column(results):
    return next(
        m.column
        for m in results.baseline
        if m.source == "modelled" and any(o.column == m.column for o in results.objectives)
    )


def test_a_modelled_figure_without_an_error_is_unknown(results):
    assert found(results)["modelled figures"].status == "unknown"


@pytest.mark.parametrize(("error", "status"), [(0.3, "ok"), (0.8, "warning")])
def test_a_modelled_figure_states_its_error(results, error, status):
    value = next(m for m in results.baseline if m.column == modelled_column(results))
    low = replace(value, name=f"{value.name}_low", value=value.value / (1 + error))
    high = replace(value, name=f"{value.name}_high", value=value.value * 2)
    check = found(replace(results, baseline=(*results.baseline, low, high)))["modelled figures"]
    assert check.status == status
    assert f"{100 * error:.0f} %" in check.text


def test_measured_and_modelled_figures_of_one_column_are_told(results):
    column = modelled_column(results)
    mixed = tuple(replace(m, source="measured") if m.column == column else m for m in results.baseline)
    assert "not comparable" in found(replace(results, baseline=mixed))["modelled figures"].text


def test_timings_steer_the_search(results):
    assert "the same seed may try other candidates" in found(results)["repeatability"].text


def test_before_the_first_trial_there_is_nothing_to_check(results):
    assert checks(replace(results, trials=(), front=(), best=None, picks=())) == ()
    assert section(replace(results, trials=(), front=(), best=None, picks=())) is None


def test_text_of_a_study_is_escaped(tmp_path):
    drawn = section(hostile_results(tmp_path))
    assert drawn is not None
    assert "<script>" not in drawn.html()


@pytest.mark.parametrize(("on_test", "status"), [(92.0, "warning"), (95.0, "ok")])
def test_a_pick_that_breaks_a_limit_on_unseen_data_is_told(results, on_test, status):
    number = results.picks[0].number
    limit = results.constraints[0]
    assert limit.column == "metric.top1"

    def tested(trial):
        value = on_test if trial.number == number else limit.limit + 1
        kept = [m for m in trial.measurements if not m.name.startswith("test_top1")]
        return replace(trial, measurements=(*kept, Measurement("test_top1", value, "%", "measured")))

    check = found(replace(results, trials=tuple(map(tested, results.trials))))["limits on unseen data"]
    assert check.status == status
    if status == "warning":
        assert (
            f"Trial {number}: top1 is 92.00 % on test, beyond the limit of 94.00 % that it kept on validation"
            in check.text
        )
        assert "Give the limit a margin" in check.next_step
        assert f"trial {number} " not in check.next_step

"""An allocator in a real study of a tiny network: budgets from YAML, and what the report is told."""

import pytest

from search.allocators.program import InfeasibleBudgetError
from search.report.findings.allocation import allocation_of
from search.study.study import run_study
from search.study.testing import SilentObserver
from spaces.candidate import Candidate
from spaces.digest import digest_of
from spaces.errors import ConfigError

SPACE = {
    "quantize": {
        "weight_bits": {"choices": [2, 4, 8], "per": "layer"},
        "rounding": ["adaround"],  # learned rounding must not be learned for the costs
        "calibration_images": 16,
    }
}
STUDY = ["sampler=allocator", "allocator=knapsack", "allocator.n_limits=3", "device=[raspberry_pi_5,gap9]"]


@pytest.fixture(scope="module")
def own(lab, tmp_path_factory):
    """A folder without other studies, where these are no knowledge of other tests."""
    return type(lab)(tmp_path_factory.mktemp("allocation"))


def planned(lab, name, *overrides, space=SPACE):
    return lab.planned(name, "one", *STUDY, *overrides, space=space)[0]


def limits_of(plan):
    """Returns the budgets of the plan's sampler."""
    sampler = plan.sampler(0)
    return {budget.name: budget for budget in sampler._found_problem().budgets}


def test_costs_of_a_plan_are_those_of_its_candidates_on_all_devices(own):
    plan = planned(
        own,
        "allocation_costs",
        "allocator.budgets={s: {measure: packed_bytes, max: 1 MiB}, t: {measure: latency_ms, max: 9 s}}",
    )
    plan.executor.start(plan.runner)
    found = limits_of(plan)
    plan.executor.close()
    assert set(found) == {
        "packed_bytes",
        "latency_ms on raspberry_pi_5",
        "latency_ms on gap9",
        "bits per weight",
    }
    one = {
        k.path: 4 if "stem" in k.path else 8
        for k in plan.space.knobs
        if k.path.startswith("quantize.weight_bits")
    }
    others = {k.path: next(iter(k.domain)) for k in plan.space.knobs}
    columns = plan.runner.structure_columns(Candidate({**others, **one}))
    for name, column in (
        ("packed_bytes", "metric.packed_bytes"),
        ("latency_ms on gap9", "cost.gap9.latency_ms"),
    ):
        assert columns[column] <= found[name].cost(one) * (1 + 1e-12)
        assert found[name].cost(one) == pytest.approx(columns[column], rel=0.01)


def test_what_other_knobs_save_is_what_a_candidate_with_them_does(own):
    granularity = {"granularity": ["tensor", "channel"], "scheme": ["asymmetric", "symmetric"]}
    plan = planned(own, "allocation_savings", space={"quantize": {**SPACE["quantize"], **granularity}})
    limits = plan.sampler(0)._context.allocation.limits
    column = "metric.packed_bytes"
    widths = {k.path: 4 for k in plan.space.knobs if k.path.startswith("quantize.weight_bits")}
    others = {k.path: next(iter(k.domain)) for k in plan.space.knobs}
    by_tensor, by_channel = (
        plan.runner.structure_columns(Candidate({**others, **widths, "quantize.granularity": value}))[column]
        for value in ("tensor", "channel")
    )
    (with_defaults,) = limits.known([widths])
    assert limits.savings(widths, column) == with_defaults[column] - min(by_tensor, by_channel)
    assert by_tensor != by_channel
    assert limits.savings(widths, "metric.top1") == 0  # only trials know it


def test_trials_keep_the_budget_and_the_report_is_told_what_led_there(own):
    space = {"quantize": {**SPACE["quantize"], "rounding": "nearest"}}
    plan = planned(
        own,
        "allocation_run",
        "allocator.budgets={size: {measure: packed_bytes, max: 4220}}",
        "study.n_trials=3",
        space=space,
    )
    results = run_study(plan, SilentObserver()).results
    assert len(results.trials) == 3
    found = allocation_of(results)
    assert found is not None
    assert [unit.name for unit in found.units] == [
        "stem.weight",
        "depthwise.weight",
        "pointwise.weight",
        "head.weight",
    ]
    assert [mark.name for mark in found.budgets] == ["packed_bytes"]
    proposed = [t.values()["metric.packed_bytes"] for t in results.trials]
    assert max(proposed) <= results.proposals["budgets"][0]["limit"]
    again = run_study(
        planned(
            own,
            "allocation_run",
            "allocator.budgets={size: {measure: packed_bytes, max: 4220}}",
            "study.n_trials=3",
            space=space,
        ),
        SilentObserver(),
    ).results
    assert again.proposals == results.proposals  # resumed without a proposal


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("allocator.budgets={size: {measure: packed_bytes, max: 100}}", r"100 packed_bytes is too small: the least possible is \d+"),
        ("+objective.constraints={size: {measure: packed_bytes, max: 100}}", r"100 packed_bytes is too small: the least"),
        ("allocator.average_bits=[1,1.5]", r"1\.\d+ bits per weight is too small: the least possible is 2 bits per weight"),
        ("allocator.budgets={size: {measure: packed_byte, max: 100}}", r"Unknown measurement 'packed_byte' in allocator\.budgets\.size"),
        ("allocator.budgets={d: {measure: metric_drop, max: 1}}", "top1_drop cannot be a budget of layers: it is known only after"),
        ("allocator.budgets={t: {measure: latency_ms, max: 9, device: host}}", "Unknown device 'host' in allocator.budgets.t"),
        ("allocator.budgets={s: 3}", r"allocator\.budgets\.s must have `max`"),
        ("allocator.tied=[[nothing*]]", r"Unknown layer pattern 'nothing\*' in allocator\.tied"),
        ("allocator.fixed={stem.weight: 3}", "no width is allowed"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_before_any_trial(own, override, message):
    name = f"allocation_{digest_of(override)}"
    plan = planned(own, name, override)
    with pytest.raises((ConfigError, InfeasibleBudgetError), match=message):
        run_study(plan, SilentObserver())
    assert not (plan.folder / "trials.csv").exists()
    with pytest.raises((ConfigError, InfeasibleBudgetError), match=message):
        planned(own, f"{name}_dry", override, "dry_run=true")


def test_a_dry_run_checks_budgets_and_measures_no_loss(own, monkeypatch):
    from search.allocators.knapsack import Knapsack

    monkeypatch.setattr(Knapsack, "problem", lambda *_: pytest.fail("losses are measured"))
    budget = "allocator.budgets={size: {measure: packed_bytes, max: 4220}}"
    assert planned(own, "allocation_dry", budget, "dry_run=true").n_trials


def test_the_first_trial_has_the_defaults_if_these_keep_the_budgets(own):
    space = {"quantize": {**SPACE["quantize"], "rounding": "nearest"}}
    for name, override in {
        "kept": "allocator.average_bits=[2,8]",
        "broken": "allocator.average_bits=[2,7]",
        "other": "allocator.fixed={stem.weight: 4}",
    }.items():
        plan = planned(own, f"allocation_first_{name}", override, "study.n_trials=1", space=space)
        (trial,) = run_study(plan, SilentObserver()).results.trials
        assert (trial.candidate in plan.first) == (name == "kept")

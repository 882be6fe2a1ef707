from dataclasses import replace

import pytest

from evaluators.base import Measurement
from search.report.findings.layers import advice, rivals
from search.report.findings.misses import failures, misses, nearest_miss
from search.report.findings.summary import no_answer
from search.report.sections.progress import best_so_far
from search.report.sections.progress import section as progress_section
from search.report.sections.rejected import section as rejected_section
from search.report.testing import fake_results


@pytest.fixture
def results(tmp_path):
    return fake_results(tmp_path, 40)


def test_misses_count_who_broke_what_by_how_much(results):
    found = misses(results)
    assert found
    for miss in found:
        column, limit = miss.constraint.column, miss.constraint.limit
        for number, excess in miss.excess.items():
            value = results.trial(number).values()[column]
            assert excess == pytest.approx(value - limit if miss.constraint.kind == "max" else limit - value)
            assert excess > 0
        assert miss.excess[miss.nearest] == min(miss.excess.values())
    broken = set().union(*(m.excess for m in found))
    assert broken == {t.number for t in results.trials if t.state == "infeasible"}
    assert [len(m.excess) for m in found] == sorted((len(m.excess) for m in found), reverse=True)


def test_the_nearest_miss_is_relative_to_the_limit(results):
    record, broken = nearest_miss(results)
    worst = max(c.excess(record.values()[c.column]) / c.limit for c in broken)
    for other in (t for t in results.trials if t.state == "infeasible"):
        values = other.values()
        assert worst <= max(c.excess(values[c.column]) / c.limit for c in results.constraints) + 1e-12


def test_failures_are_grouped_without_their_numbers(results):
    ((state, records),) = failures(results)
    assert state == "failed"
    assert {r.number for r in records} == {t.number for t in results.trials if t.state == "failed"}


def test_the_layer_with_the_lowest_sqnr_and_the_trial_that_is_better_there(results):
    best = results.trial(results.best)
    found = advice(results, best)
    own = {e["layer"]: e["output_sqnr_db"] for e in best.details["layers"]}
    assert found.sqnr_db == min(own.values())
    assert own[found.layer] == found.sqnr_db
    assert found.better_db >= found.sqnr_db + 3
    for path, (ours, theirs) in found.differing.items():
        assert ours != theirs, path


def test_identical_layers_are_left_out(results):
    best = results.trial(results.best)
    layers = [{"layer": "same", "output_sqnr_db": 200.0}, {"layer": "float", "output_sqnr_db": None}]
    assert advice(results, replace(best, details={"layers": layers})) is None
    assert advice(results, replace(best, details={"layers": "broken"})) is None


def test_rivals_are_the_runner_up_and_the_worst(results):
    found = dict(rivals(results, results.trial(results.best), "output_sqnr_db"))
    assert found["runner-up"].number in results.front
    assert found["runner-up"].number != results.best
    layered = [
        t for t in results.trials if t.details.get("layers") and t.details["layers"][0]["output_sqnr_db"]
    ]
    assert found["worst"].values()["metric.top1"] == min(t.values()["metric.top1"] for t in layered)


def test_best_so_far_never_gets_worse_and_ends_at_the_best(results):
    known = [v for v in best_so_far(results, "metric.top1") if v is not None]
    assert known == sorted(known)
    assert known[-1] == max(t.values()["metric.top1"] for t in results.trials if t.state == "complete")
    assert (
        min(v for v in best_so_far(results, "cost.host.latency_ms") if v)
        == best_so_far(results, "cost.host.latency_ms")[-1]
    )


def pruned(record, top1, error, n_images):
    """Returns the trial as if it had been stopped early."""
    drop = 98.0 - top1
    measurements = (
        Measurement("top1_partial", top1, "%", "measured"),
        Measurement("top1_drop_partial", drop, "%", "measured"),
        Measurement("top1_partial_error", error, "%", "measured"),
        Measurement("top1_partial_images", n_images, "", "measured"),
    )
    return replace(record, state="pruned", reason="top1 is hopeless", measurements=measurements)


def test_a_pruned_trial_breaks_a_limit_only_where_its_interval_lies_beyond(results):
    complete = [t for t in results.trials if t.state == "complete"][:2]
    far, near = pruned(complete[0], 80.0, 1.0, 256), pruned(complete[1], 93.0, 1.0, 512)
    others = [t for t in results.trials if t.number not in (far.number, near.number)]
    results = replace(results, trials=tuple(sorted((*others, far, near), key=lambda t: t.number)))
    (accuracy,) = (m for m in misses(results) if m.constraint.name == "accuracy")
    assert accuracy.excess[far.number] == pytest.approx(14.0)
    assert near.number not in accuracy.excess


def test_a_pruned_trial_breaks_the_limit_that_it_was_stopped_for(results):
    """Few examples can be certain of it: three wrong ones of the first ten are too many of 100, if two are allowed."""
    first, *others = (t for t in results.trials if t.state == "complete")
    (limit,) = (c for c in results.constraints if c.name == "accuracy")
    stopped = replace(pruned(first, 93.0, 1.0, 16), reason=f"top1 is too low for certain; {limit.demand}")
    results = replace(results, trials=(stopped, *others))
    (accuracy,) = (m for m in misses(results) if m.constraint.name == "accuracy")
    assert accuracy.nearest == stopped.number


def test_pruned_and_failed_trials_are_listed_apart(results):
    stopped = pruned(next(t for t in results.trials if t.state == "complete"), 91.25, 0.5, 256)
    trials = tuple(stopped if t.number == stopped.number else t for t in results.trials)
    html = rejected_section(replace(results, trials=trials)).html()
    failed_part, _, pruned_part = html.partition("Stopped early")
    assert "<h3>Failed</h3>" in failed_part
    assert "1 pruned (stopped early" in failed_part
    assert "≈ 91.25 % [90.27, 92.23]" in pruned_part
    assert "256" in pruned_part
    assert "top1 is hopeless" in pruned_part


def test_nothing_is_shipped_where_all_were_stopped_early(tmp_path):
    results = fake_results(tmp_path, 3, top1_min=94.0)
    trials = tuple(pruned(t, 60.0 + t.number, 0.5, 256) for t in results.trials)
    results = replace(results, trials=trials, front=(), best=None, picks=())
    text = no_answer(results)
    assert "3 were pruned (stopped early)" in text
    assert "the nearest, trial 2, missed it by 32.00 pp" in text


def test_progress_reports_low_fidelity_seconds_knowledge_and_prediction(results):
    record = replace(
        results.trials[0], seconds={"propose": 1.0, "known": 2.0, "low_fidelity": 4.0, "accuracy": 3.0}
    )
    prediction = "another 20 trials would gain at most 0.05 points of top1 (95 % sure)"
    html = progress_section(
        replace(results, trials=(record, *results.trials[1:]), learned=("learned from 24 trials",), prediction=prediction)
    ).html()  # fmt: skip
    assert "Low-fidelity evaluations of candidates before their trials took 6 s" in html
    assert "low-fidelity evaluations: runs on a part of the validation examples" in html
    assert "learned from 24 trials" in html
    assert "Another 20 trials would gain at most 0.05 points" in html

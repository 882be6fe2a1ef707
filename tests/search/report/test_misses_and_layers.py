from dataclasses import replace

import pytest

from search.report.layers import advice, rivals
from search.report.misses import failures, misses, nearest_miss
from search.report.progress import best_so_far
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


def test_the_layer_that_hurts_and_the_trial_that_does_better(results):
    best = results.trial(results.best)
    found = advice(results, best)
    own = {e["layer"]: e["output_sqnr_db"] for e in best.details["layers"]}
    assert found.sqnr_db == min(own.values())
    assert own[found.layer] == found.sqnr_db
    assert found.better_db >= found.sqnr_db + 3
    for path, (ours, theirs) in found.differing.items():
        assert ours != theirs, path


def test_identical_layers_are_no_weak_ones(results):
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

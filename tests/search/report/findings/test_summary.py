from dataclasses import replace
from functools import partial

import pytest

from evaluators.base import Measurement
from search.record.results import BASELINE
from search.report.findings.summary import answers, comparison, no_answer, trial_sentence
from search.report.testing import fake_results


def with_extra(results, number, *extra):
    trials = [
        replace(t, measurements=(*t.measurements, *extra)) if t.number == number else t
        for t in results.trials
    ]
    return replace(results, trials=tuple(trials))


def test_the_sentence_quotes_the_test_split_once_it_was_scored(tmp_path):
    results = fake_results(tmp_path)
    assert "test top1" not in trial_sentence(results, results.best, "host")
    scored = with_extra(
        results,
        results.best,
        Measurement("test_top1", 91.85, "%", "measured"),
        Measurement("test_top1_drop", -0.12, "%", "measured"),
        Measurement("test_top1_drop_low", -0.29, "%", "measured"),
        Measurement("test_top1_drop_high", 0.05, "%", "measured"),
    )
    assert trial_sentence(scored, scored.best, "host").startswith(
        "91.85 % test top1 (+0.12 pp [−0.05, +0.29])"
    )


def test_ratios_are_those_of_the_figures_that_are_shown(tmp_path):
    results = fake_results(tmp_path)
    beside = Measurement("latency_float_ms", 9.0, "ms", "measured", "host")
    rows = comparison(with_extra(results, results.best, beside), results.best, "host")
    assert beside.column not in {row.column for row in rows}
    row = next(row for row in rows if row.column == "cost.host.latency_ms")
    factor, _, word = row.difference.partition("× ")
    assert word == "faster"
    assert float(factor) == pytest.approx(row.before.value / row.after.value, rel=0.05)


def test_metrics_name_their_split(tmp_path):
    results = fake_results(tmp_path)
    named = replace(results, config={**results.config, "task": {"_target_": "x"}})
    assert "validation top1" in trial_sentence(named, named.best, "host")
    scored = with_extra(named, named.best, Measurement("test_top1", 91.0, "%", "measured"))
    assert "test top1" in trial_sentence(scored, scored.best, "host")
    assert "validation" not in trial_sentence(scored, scored.best, "host")
    assert {row.name for row in comparison(named, named.best, "host")} >= {
        "validation top1",
        "latency",
        "weight size",
    }


def test_what_compares_with_the_float_model_has_no_figure_of_it(tmp_path):
    results = fake_results(tmp_path)
    sqnr = partial(Measurement, "output_sqnr_db", unit="dB", source="measured")
    known = replace(with_extra(results, results.best, sqnr(17.0)), baseline=(*results.baseline, sqnr(200.0)))
    row = next(r for r in comparison(known, known.best, None) if r.column.endswith("output_sqnr_db"))
    assert (row.before, row.after.text, row.difference) == (None, "17 dB", "")


def picked(results, **changes):
    first, *others = results.picks
    return replace(results, picks=(replace(first, **changes), *others))


def test_a_tie_and_its_rivals_are_told(tmp_path):
    results = fake_results(tmp_path)
    other = next(n for n in results.front if n != results.picks[0].number)
    why = f"within 3 % of the fastest (trial {other}) among the models that meet every constraint, with a better top1"
    sentence = answers(picked(results, why=why, rivals=(other, BASELINE)))[0]
    assert f". It is {why}." in sentence
    assert f"Another run may pick trial {other} and the float model" in sentence
    studied = replace(results, config={**results.config, "task": {"_target_": "x"}})
    assert answers(picked(studied, why=why))[0].endswith("with a better validation top1.")


def test_the_float_model_as_the_pick_is_kept(tmp_path):
    results = picked(fake_results(tmp_path), number=BASELINE, why="lowest latency among the models")
    sentence = answers(results)[0]
    assert sentence.startswith("Keep the float model on host: ")
    assert "No model that meets the limits is better there" in sentence
    assert "×" not in sentence
    assert "trial" not in sentence


def test_a_cost_that_is_higher_says_than_what(tmp_path):
    results = fake_results(tmp_path)
    slow = tuple(replace(m, value=m.value / 100) if m.name == "latency_ms" else m for m in results.baseline)
    assert "slower than the float model)" in trial_sentence(
        replace(results, baseline=slow), results.best, "host"
    )


def test_a_float_model_that_keeps_what_no_candidate_does_is_named(tmp_path):
    results = fake_results(tmp_path, top1_min=101)
    assert "float model" not in no_answer(results)
    assert no_answer(replace(results, constraints=())).endswith(" The float model keeps every limit.")

from dataclasses import replace

from evaluators.base import Measurement
from search.report.findings.summary import comparison, trial_sentence
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


def test_a_latency_is_compared_with_the_float_model_timed_beside_it(tmp_path):
    results = fake_results(tmp_path)
    column = "cost.host.latency_ms"
    now = results.trial(results.best).values()[column]
    beside = Measurement("latency_float_ms", 3 * now, "ms", "measured", "host")
    timed = replace(results, trials=tuple(
        replace(t, measurements=(*t.measurements, beside))
        if t.number == results.best else t for t in results.trials
    ))  # fmt: skip
    rows = {row.column: row.difference for row in comparison(timed, timed.best, "host")}
    assert rows[column] == "3× faster"
    assert beside.column not in rows

import numpy as np
import pytest

from evaluators.base import Measurement
from search.record.results import Objective, TrialRecord
from search.samplers.acquisition.gain import Forecast, Gain
from search.study.patience import Patience, in_words, tolerance, what_counts, why_stop
from spaces.candidate import Candidate

TOP1, BYTES = Objective("metric.top1", "maximize"), Objective("cost.board.file_bytes", "minimize")


def forecast(bound, axis=0, k=20):
    return Forecast(k, Gain(bound / 3, bound), axis)


def test_without_patience_nothing_stops():
    assert why_stop(None, 10**6, forecast(0.0)) == ""


@pytest.mark.parametrize("expected", [None, forecast(9.0)])
def test_a_study_without_progress_stops_whatever_the_forecast(expected):
    assert why_stop(20, 20, expected, 0.1) == ""
    assert why_stop(20, 21, expected, 0.1) == "no progress in 20 trials (study.patience)"


def test_a_forecast_stops_earlier():
    assert why_stop(20, 0, forecast(0.2), 0.1, "top1", "%") == ""
    assert why_stop(20, 0, forecast(0.05), 0.1, "top1", "%") == (
        "another 20 trials would gain at most 0.05 points of top1 (95 % sure), "
        "less than the 0.1 points of top1 that count (study.patience)"
    )


def test_a_forecast_of_the_hypervolume_has_a_tolerance_of_its_own():
    assert why_stop(5, 0, forecast(0.02, None, 5), 1e9) == ""
    assert why_stop(5, 0, forecast(0.0042, None, 5)).startswith(
        "another 5 trials would gain at most 0.42 % of the front's hypervolume (95 % sure)"
    )


def test_a_forecast_as_text():
    assert (
        in_words(forecast(0.051234), "top1", "%")
        == "another 20 trials would gain at most 0.052 points of top1 (95 % sure)"
    )
    assert (
        in_words(forecast(3.0, k=1), "latency_ms", "ms")
        == "another trial would gain at most 3 ms of latency_ms (95 % sure)"
    )
    assert in_words(forecast(0.0)) == "another 20 trials would gain at most 0 (95 % sure)"
    assert in_words(forecast(120000.0), "file_bytes", "bytes").count("120,000 bytes") == 1
    assert "cannot be predicted" in in_words(forecast(np.inf))


def test_the_tolerance_is_at_least_the_standard_error():
    values = [70.0, 60.0, 50.0, -np.inf]
    assert tolerance(values) == pytest.approx(0.1)  # 1 % of the distance from the median to the best
    assert tolerance(values, 0.3) == 0.3
    assert tolerance([]) == 0.0
    assert tolerance([], 0.2) == 0.2


# -- on the records of a study -------------------------------------------------------------------------------------------


def record(number, top1, state="complete", drop_high=None):
    measured = [
        Measurement("top1", top1, "%", "measured"),
        Measurement("file_bytes", 1000.0 + number, "bytes", "measured", "board"),
    ]
    if drop_high is not None:
        measured.append(Measurement("top1_drop", 0.0, "%", "measured"))
        measured.append(Measurement("top1_drop_high", drop_high, "%", "measured"))
    return TrialRecord(number, state, "", Candidate({"n": number}), tuple(measured))


RECORDS = [record(0, 70.0), record(1, 50.0), record(2, 60.0), record(3, 99.0, "infeasible")]


def test_the_tolerance_is_computed_from_the_trials():
    assert what_counts(RECORDS, TOP1) == (pytest.approx(0.1), "top1", "%")
    counts, name, unit = what_counts(RECORDS, BYTES)
    assert (counts, name, unit) == (pytest.approx(0.01), "file_bytes", "bytes")
    assert what_counts([record(0, 70.0, drop_high=0.98)], TOP1)[0] == pytest.approx(0.5)
    assert what_counts(RECORDS[3:], TOP1) == (0.0, "top1", "")


def test_a_study_stops_once_the_predicted_gain_is_small():
    requested = []

    def predicted(k):
        requested.append(k)
        return forecast(0.05 if len(requested) > 1 else 5.0, k=k)

    rule = Patience(7, TOP1)
    assert rule.why_stop([], 0, predicted) == ""
    assert rule.why_stop(RECORDS[:3], 3, predicted) == ""
    assert rule.why_stop(RECORDS[:3], 3, predicted) == ""  # no new trial: no new forecast
    assert requested == [7]
    assert rule.why_stop(RECORDS, 3, predicted).startswith(
        "another 7 trials would gain at most 0.05 points of top1"
    )


def test_samplers_without_a_forecast_stop_without_progress():
    assert Patience(2, TOP1).why_stop(RECORDS, 2, lambda k: None) == ""
    assert (
        Patience(2, TOP1).why_stop(RECORDS, 1, lambda k: None) == "no progress in 2 trials (study.patience)"
    )
    assert Patience(None, TOP1).why_stop(RECORDS, 0, lambda k: forecast(0.0)) == ""


def test_the_prediction_says_what_more_trials_would_gain():
    text = Patience(None, TOP1).prediction(RECORDS, lambda k: forecast(0.05, k=k))
    assert text == "another 20 trials would gain at most 0.05 points of top1 (95 % sure)"
    assert Patience(3, TOP1).prediction(RECORDS, lambda k: forecast(0.05, k=k)).startswith("another 3 trials")
    assert Patience(3, TOP1).prediction(RECORDS, lambda k: None) == ""
    assert Patience(3, TOP1).prediction([], lambda k: forecast(0.05, k=k)) == ""

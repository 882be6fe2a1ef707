import pytest

from evaluators.base import Measurement
from search.record.results import TrialRecord
from search.report.findings.noise import is_above_noise, noise
from spaces.candidate import Candidate


def trial(number, **columns):
    measured = tuple(
        Measurement(
            name, value, "ms" if "latency" in name else "%", "measured", "host" if "latency" in name else None
        )
        for name, value in columns.items()
    )
    return TrialRecord(number, "complete", "", Candidate({"n": number}), measured)


@pytest.mark.parametrize(
    ("values", "above"), [((145.0, 146.0), False), ((145.0, 160.0), True), ((145.0,), False)]
)
def test_a_latency_has_to_differ_by_more_than_the_tie(values, above):
    assert (
        is_above_noise([trial(n, latency_ms=v) for n, v in enumerate(values)], "cost.host.latency_ms")
        == above
    )


def test_a_wide_interval_of_a_latency_is_more_than_the_tie():
    trials = [
        trial(n, latency_ms=v, latency_ms_low=v - 30, latency_ms_high=v + 30)
        for n, v in enumerate((100.0, 120.0))
    ]
    assert noise(trials, "cost.host.latency_ms") == 30.0
    assert not is_above_noise(trials, "cost.host.latency_ms")


@pytest.mark.parametrize(("values", "above"), [((98.0, 98.5), False), ((98.0, 99.5), True)])
def test_a_metric_has_to_differ_by_more_than_its_paired_interval(values, above):
    trials = [
        trial(n, top1=v, top1_drop=99 - v, top1_drop_low=98 - v, top1_drop_high=100 - v)
        for n, v in enumerate(values)
    ]
    assert noise(trials, "metric.top1") == 1.0
    assert is_above_noise(trials, "metric.top1") == above


def test_exact_figures_have_no_noise():
    trials = [trial(0, file_bytes=100.0), trial(1, file_bytes=101.0)]
    assert noise(trials, "metric.file_bytes") == 0.0
    assert is_above_noise(trials, "metric.file_bytes")
    assert not is_above_noise(trials, "metric.absent")

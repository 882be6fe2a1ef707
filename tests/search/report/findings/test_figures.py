"""Changes against the baseline, whichever way a metric is better."""

from dataclasses import replace

import pytest

from evaluators.base import Measurement
from search.record.results import TrialRecord
from search.report.findings import figures
from search.report.testing import fake_results
from spaces.candidate import Candidate


def study(folder, name, before, after, drop):
    """A study with one trial whose metric went from `before` to `after`, `drop` worse by its evaluator."""
    baseline = (Measurement(name, before, "K", "measured"),)
    values = {
        name: after,
        f"{name}_drop": drop,
        f"{name}_drop_low": drop - 0.25,
        f"{name}_drop_high": drop + 0.5,
    }
    measured = tuple(Measurement(key, value, "K", "measured") for key, value in values.items())
    trial = TrialRecord(0, "complete", "", Candidate({"x": 0}), measured)
    return replace(fake_results(folder), baseline=baseline, trials=(trial,)), trial


@pytest.mark.parametrize(
    ("before", "after", "drop", "way", "low", "high"),
    [(40.0, 39.0, 1.0, "maximize", -1.5, -0.75), (40.0, 41.0, 1.0, "minimize", 0.75, 1.5), (40.0, 39.0, -1.0, "minimize", -1.25, -0.5)],
)  # fmt: skip
def test_a_change_is_after_minus_before_with_its_interval(tmp_path, before, after, drop, way, low, high):
    results, trial = study(tmp_path, "mae", before, after, drop)
    assert figures.direction(results, "metric.mae") == way
    change = figures.change(results, trial, "metric.mae")
    assert (change.value, change.low, change.high) == (after - before, low, high)

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from evaluators.base import Measurement
from search.record.results import Objective, TrialRecord
from search.report.findings.settings import comparisons
from search.report.testing import fake_results
from spaces.candidate import Candidate


def study(tmp_path, rows, knobs):
    """A study of `(values, score)` rows; the first row is the best."""
    trials = tuple(
        TrialRecord(i, "complete", "", Candidate(values), (Measurement("score", score, "%", "measured"),))
        for i, (values, score) in enumerate(rows)
    )
    return replace(
        fake_results(tmp_path, 0),
        trials=trials,
        knobs=knobs,
        objectives=(Objective("metric.score", "maximize"),),
        best=0,
    )


def test_pairs_differ_in_one_knob_only(tmp_path):
    rng = np.random.default_rng(0)
    noise = {c: float(rng.normal()) for c in "abc"}
    rows = [
        ({"bits": bits, "clip": clip}, 90 + noise[clip] - 2.0 * (bits == 4))
        for bits, clip in product((8, 4), "abc")
    ]
    found = comparisons(study(tmp_path, rows, {"bits": (4, 8), "clip": tuple("abc")}))
    (bits,) = [c for c in found if c.knob == "bits"]
    assert (bits.value, bits.reference, bits.is_paired, bits.counts) == ("4", "8", True, (3,))
    gap = bits.differences["metric.score"]
    assert gap.mean == pytest.approx(-2.0)
    assert (gap.low, gap.high) == pytest.approx((-2.0, -2.0))


def test_the_interval_is_students(tmp_path):
    gaps = [1.0, 2.0, 4.0]
    rows = [({"bits": 8, "x": i}, 50.0) for i in range(3)] + [
        ({"bits": 4, "x": i}, 50 + g) for i, g in enumerate(gaps)
    ]
    (bits,) = [
        c for c in comparisons(study(tmp_path, rows, {"bits": (4, 8), "x": (0, 1, 2)})) if c.knob == "bits"
    ]
    half = 4.302652729749464 * np.std(gaps, ddof=1) / np.sqrt(3)  # t(0.975, 2 degrees of freedom)
    gap = bits.differences["metric.score"]
    assert (gap.low, gap.high) == pytest.approx((np.mean(gaps) - half, np.mean(gaps) + half))


def test_without_pairs_group_means_are_compared_and_marked(tmp_path):
    rows = [({"bits": 8, "x": 0.1}, 50.0), ({"bits": 8, "x": 0.2}, 52.0), ({"bits": 4, "x": 0.3}, 40.0)]
    (bits,) = [c for c in comparisons(study(tmp_path, rows, {"bits": (4, 8), "x": ()})) if c.knob == "bits"]
    assert not bits.is_paired
    assert bits.counts == (1, 2)
    assert bits.differences["metric.score"].mean == pytest.approx(-11.0)
    assert bits.differences["metric.score"].low is None


def test_one_layer_of_many_is_compared_in_pairs_only(tmp_path):
    rows = [
        ({"b[l0]": 8, "b[l1]": 8}, 50.0),
        ({"b[l0]": 4, "b[l1]": 8}, 48.0),
        ({"b[l0]": 4, "b[l1]": 4}, 40.0),
    ]
    found = {c.knob: c for c in comparisons(study(tmp_path, rows, {"b[l0]": (4, 8), "b[l1]": (4, 8)}))}
    assert found["b[l0]"].counts == (1,)
    assert found["b[l0]"].differences["metric.score"].mean == pytest.approx(-2.0)
    assert all(c.is_paired for c in found.values())


def test_objectives_whose_values_are_equal_are_not_compared(tmp_path):
    rows = [({"bits": 8 if clip in "abc" else 4, "clip": clip}, 0.1) for clip in "abcde"]
    assert comparisons(study(tmp_path, rows, {"bits": (4, 8), "clip": tuple("abcde")})) == []


def test_equal_values_differ_by_nothing_at_all(tmp_path):
    """All but the last trial are equal, but for what rounding leaves in sums."""
    rows = [
        ({"bits": 8, "clip": clip}, value)
        for clip, value in zip("abcd", (0.3, 0.1 + 0.2, 0.3, 9.0), strict=True)
    ]
    found = comparisons(study(tmp_path, rows, {"bits": (4, 8), "clip": tuple("abcd")}))
    assert found
    assert {d.mean for c in found for d in c.differences.values() if abs(d.mean) < 1} == {0.0}

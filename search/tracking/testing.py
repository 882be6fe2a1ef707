"""Conformance tests of trackers. The test of a new tracker inherits them and overrides the fixture `make`::

class TestMyTracker(TrackerConformance):
    @pytest.fixture
    def make(self, tmp_path):
        return lambda: MyTracker(tmp_path / "log")
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.base import Measurement
from search.record.results import StudyRecord
from search.report.testing import fake_results
from search.tracking.base import Tracker
from spaces.candidate import Candidate

MakeTracker = Callable[[], Tracker]
_LONGEST_CALL_S = 0.5  # a trial of a small network takes about this; a tracker must not add to it


def first(results: StudyRecord, n_trials: int) -> StudyRecord:
    """Returns the study as it was after its first `n_trials` trials."""
    front = tuple(n for n in results.front if n < n_trials)
    return replace(
        results,
        trials=results.trials[:n_trials],
        hypervolumes=results.hypervolumes[:n_trials],
        aliases=(),
        front=front,
        best=front[0] if front else None,
        picks=tuple(p for p in results.picks if p.number in front),
    )


def play(tracker: Tracker, results: StudyRecord, start: int = 0) -> None:
    """Passes a study to a tracker trial by trial, from trial `start` on, without closing the tracker."""
    tracker.start(first(results, start))
    for n_trials in range(start + 1, len(results.trials) + 1):
        tracker.trial(results.trials[n_trials - 1], first(results, n_trials))


class TrackerConformance:
    """Inherit and override the fixture `make`; each call of the function that it returns opens the same store."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> MakeTracker:
        """Returns a function that makes the tracker."""
        raise NotImplementedError

    def test_a_whole_study_passes(self, make: MakeTracker, tmp_path: Path) -> None:
        """Start, trials, finish, close; a second close changes nothing."""
        tracker, results = make(), fake_results(tmp_path / "out", 10)
        play(tracker, results)
        tracker.finish(results)
        tracker.close()
        tracker.close()

    def test_a_trial_does_not_wait(self, make: MakeTracker, tmp_path: Path) -> None:
        """Calls during the search return at once, however slow the server is."""
        tracker, results = make(), fake_results(tmp_path / "out", 6)
        longest = 0.0
        tracker.start(first(results, 0))
        for n_trials in range(1, 7):
            before = time.thread_time()
            tracker.trial(results.trials[n_trials - 1], first(results, n_trials))
            longest = max(longest, time.thread_time() - before)
        tracker.close()
        assert longest < _LONGEST_CALL_S

    def test_an_interrupted_study_can_be_resumed(self, make: MakeTracker, tmp_path: Path) -> None:
        """Close without finish, then the rest of the same study with a new tracker."""
        results = fake_results(tmp_path / "out", 8)
        tracker = make()
        play(tracker, first(results, 4))
        tracker.close()
        again = make()
        play(again, results, start=4)
        again.finish(results)
        again.close()

    @pytest.mark.parametrize(
        ("n_trials", "devices", "top1_min"), [(0, ("host",), 94.0), (5, (), 94.0), (6, ("mcu",), 101.0)]
    )
    def test_odd_studies_pass(
        self, make: MakeTracker, tmp_path: Path, n_trials: int, devices: tuple[str, ...], top1_min: float
    ) -> None:
        """No trials, no devices, nothing feasible."""
        tracker, results = make(), fake_results(tmp_path / "out", n_trials, devices, top1_min=top1_min)
        play(tracker, results)
        tracker.finish(results)
        tracker.close()

    def test_odd_names_and_values_pass(self, make: MakeTracker, tmp_path: Path) -> None:
        """Names with any character, long values, numbers that are not finite."""
        tracker, results = make(), odd_results(tmp_path / "out")
        play(tracker, results)
        tracker.finish(results)
        tracker.close()


def odd_results(folder: Path) -> StudyRecord:
    """Returns a study whose names and values break naive trackers."""
    results = fake_results(folder, 3)
    values = {
        "bits[/stem/conv:0]": 4,
        "bits[a=b,c@d]": 8,
        "keep": ["layer" * 500] * 5,
        "<b>&\"'": "</script>",
    }
    odd = [
        Measurement("latency_ms", math.inf, "ms", "measured", "a/b [@=,]"),
        Measurement("sqnr_db", math.nan, "dB", "measured"),
    ]
    record = results.trials[0]
    changed = replace(
        record, candidate=Candidate(values), measurements=(*record.measurements, *odd), reason="a\nb" * 5000
    )
    return replace(results, name='o\'dd <study> "x"', trials=(changed, *results.trials[1:]), aliases=())

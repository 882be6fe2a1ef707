import numpy as np
import pytest

from evaluators.cost.latency import turns
from evaluators.cost.latency.measured import LatencyEvaluator
from evaluators.cost.latency.turns import time_in_turns
from evaluators.testing import tiny_context, tiny_model


class Models:
    """Models whose runs take known times on a fake clock, which notes the sessions that were opened."""

    def __init__(self, monkeypatch, *ms):
        self.now_ns, self.opened, self.ms = 0, [], ms
        monkeypatch.setattr(turns, "perf_counter_ns", lambda: self.now_ns)

    def openers(self):
        return [lambda i=i: self._open(i) for i in range(len(self.ms))]

    def _open(self, i):
        self.opened.append(i)

        def run():
            ms = self.ms[i]
            self.now_ns += int(1e6 * (ms(self.now_ns / 1e6) if callable(ms) else ms))

        return run


def test_every_round_opens_a_new_session_of_every_model(monkeypatch):
    models = Models(monkeypatch, 1.0, 2.0, 3.0)
    times = time_in_turns(models.openers(), 4, 0.01)
    assert times.tolist() == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    assert models.opened == [0, 1, 2, 2, 1, 0, 1, 2, 0, 0, 2, 1]


def test_later_rounds_go_on_with_the_order(monkeypatch):
    models = Models(monkeypatch, 1.0, 1.0, 1.0)
    time_in_turns(models.openers(), 2, 0.01, offset=2)
    assert models.opened == [1, 2, 0, 0, 2, 1]


def test_a_steady_drift_cancels_between_models(monkeypatch):
    slower = lambda now_ms: 1.0 + now_ms / 2000  # noqa: E731
    times = time_in_turns(Models(monkeypatch, slower, slower).openers(), 8, 0.01)
    assert np.median(times[0] / times[1]) == pytest.approx(1.0, abs=0.01)
    assert times[0][-1] > 1.05 * times[0][0]


def test_a_slow_model_is_run_a_few_times_only(monkeypatch):
    models = Models(monkeypatch, 5000.0)
    assert time_in_turns(models.openers(), 1, 0.01).tolist() == [[5000.0]]
    assert models.now_ns <= 4 * 5000 * 1e6


def test_artifacts_are_timed_in_turns():
    times = LatencyEvaluator(max_seconds=0.03).time_again([tiny_model(), tiny_model()], tiny_context(), 3)
    assert times.shape == (2, 3)
    assert (times > 0).all()


def test_no_model_takes_no_time():
    assert time_in_turns([], 3, 0.01).shape == (0, 3)

from evaluators.profile import calm
from evaluators.profile.calm import Anchor


class Clock:
    """Stands for the machine: an anchor's run takes so many us."""

    def __init__(self):
        self.now_ns, self.run_us = 0, 100.0

    def run(self):
        self.now_ns += int(1000 * self.run_us)

    def __call__(self):
        return self.now_ns


def test_disturbed_moments_are_told_from_calm_ones(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(calm, "perf_counter_ns", clock)
    anchor = Anchor(clock.run)
    assert anchor.is_calm()
    clock.run_us = 140
    assert not any(anchor.is_calm() for _ in range(50))
    clock.run_us = 102
    assert anchor.is_calm()
    assert 0.7 < anchor.calm_share < 0.9
    assert anchor.disturbed_factor == 1.4


def test_a_machine_that_slows_down_for_good_is_calm_again(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(calm, "perf_counter_ns", clock)
    anchor = Anchor(clock.run)
    clock.run_us = 140
    for _ in range(30 * len(anchor.history_us) + 1000):
        calm_now = anchor.is_calm()
    assert not calm_now or anchor.level_us > 130


def test_a_lucky_moment_does_not_set_the_level(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(calm, "perf_counter_ns", clock)
    anchor = Anchor(clock.run)
    clock.run_us = 50
    anchor.is_calm()
    clock.run_us = 100
    assert anchor.is_calm()
    assert anchor.disturbed_factor == 1.0

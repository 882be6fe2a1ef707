import threading

import pytest

from search.report.testing import fake_results
from search.tracking.writer import Writer


@pytest.fixture
def states(tmp_path):
    return [fake_results(tmp_path, n) for n in range(4)]


def test_the_newest_state_is_written_and_older_ones_may_be_skipped(states):
    written, gate = [], threading.Event()

    def write(results, phase, beat):
        gate.wait(10)
        written.append((len(results.trials), phase))

    writer = Writer(write, retries=0, backoff_s=0.01)
    for results in states:
        writer.put(results, "running")
    writer.put(states[-1], "finished")
    gate.set()
    assert writer.close(10) is None
    assert written[-1] == (3, "finished")
    assert len(written) <= 2


def test_a_failure_is_tried_again_with_the_same_state(states):
    attempts = []

    def write(results, phase, beat):
        attempts.append(phase)
        if len(attempts) < 3:
            raise OSError("down")

    writer = Writer(write, retries=3, backoff_s=0.01)
    writer.put(states[2], "finished")
    assert writer.close(10) is None
    assert attempts == ["finished"] * 3


def test_it_gives_up_after_its_retries_and_returns_the_error(states):
    attempts = []

    def write(results, phase, beat):
        attempts.append(phase)
        raise OSError("down")

    writer = Writer(write, retries=2, backoff_s=0.01)
    writer.put(states[1], "finished")
    error = writer.close(10)
    assert isinstance(error, OSError)
    assert 3 <= len(attempts) <= 5  # one or two may have come before close


def test_a_write_that_hangs_times_out(states):
    gate = threading.Event()
    writer = Writer(lambda results, phase, beat: gate.wait(30), retries=0, backoff_s=0.01)
    writer.put(states[1], "finished")
    assert isinstance(writer.close(0.2), TimeoutError)
    gate.set()


def test_a_write_that_makes_progress_does_not_time_out(states):
    pauses = []

    def write(results, phase, beat):
        for _ in range(8):
            pauses.append(threading.Event().wait(0.1))
            beat()

    writer = Writer(write, retries=0, backoff_s=0.01)
    writer.put(states[1], "finished")
    assert writer.close(0.5) is None  # shorter than the whole, longer than a step
    assert len(pauses) == 8

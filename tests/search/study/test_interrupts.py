import signal
import threading
import time

import pytest

from search.study import interrupts as module
from search.study.interrupts import Interrupts

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def restored(interruptible):
    """Handlers as in a terminal, and the same ones after the test."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


@pytest.fixture
def later(monkeypatch):
    """Moves the clock on, so that the next signal is a request of its own."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def move(seconds=1.0):
        now[0] += seconds

    return move


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Sets Python's own handlers: the tests may have been started by `nohup`, or in the background."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_raises_and_is_remembered(number):
    interrupts = Interrupts()
    with interrupts.noted(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert interrupts.signal == number
    assert (
        interrupts.text
        == {2: "interrupted", 15: "interrupted by SIGTERM", 1: "interrupted by SIGHUP"}[number]
    )
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


def test_a_result_is_recorded_to_its_end():
    interrupts, recorded = Interrupts(), []
    with interrupts.noted():
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            recorded.append("whole")
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert recorded == ["whole"]


def test_two_signals_at_once_are_one_request(later):
    """As GNU `timeout` sends them: the second one must not end the handling of the first."""
    interrupts, handled = Interrupts(), []
    later()
    with interrupts.noted():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)
            handled.append(True)
    assert handled


def test_an_exception_that_got_lost_is_raised_by_the_next_request(later):
    interrupts = Interrupts()
    with interrupts.noted():
        for _ in range(2):
            later()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)


def test_the_second_signal_during_the_end_skips_what_is_slow(later):
    interrupts, done = Interrupts(), []

    def slow():
        done.append("begun")
        for _ in range(2):
            later()
            signal.raise_signal(signal.SIGINT)
            done.append("went on")

    with interrupts.noted():
        interrupts.end()
        interrupts.optional(slow)
        interrupts.optional(lambda: done.append("skipped"))
    assert done == ["begun", "went on"]


def test_no_handler_is_set_outside_the_main_thread():
    seen = []

    def run():
        with Interrupts().noted():
            seen.extend(signal.getsignal(number) for number in NUMBERS)

    before = [signal.getsignal(number) for number in NUMBERS]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.parametrize("number", NUMBERS)
def test_an_ignored_signal_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interrupts().noted():
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_handler_that_was_set_in_between_is_replaced():
    """Ray's `init` sets one that exits."""
    interrupts = Interrupts()
    with interrupts.noted():
        signal.signal(signal.SIGTERM, lambda number, frame: pytest.fail("Ray's handler ran"))
        interrupts.install()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_the_death_of_a_worker_waits_for_the_signal_that_ended_it():
    interrupts = Interrupts()
    sender = threading.Timer(0.1, signal.raise_signal, [signal.SIGTERM])
    with interrupts.noted(), interrupts.held():  # it may arrive between two bytecodes of the test itself
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            interrupts.settle()
        sender.join()


def test_after_the_death_of_a_worker_for_a_reason_of_its_own_the_study_goes_on(monkeypatch):
    monkeypatch.setattr(module, "_SETTLE_S", 0.05)
    began = time.monotonic()
    Interrupts().settle()
    assert time.monotonic() - began < 5

import os
import subprocess
import sys
import threading
import time

import pytest

from search.trials import machine_lock
from search.trials.machine_lock import MachineLock


def test_a_timing_waits_for_computations_and_excludes_later_ones(tmp_path):
    lock, events = MachineLock(tmp_path), []
    inside = threading.Event()

    def time_something():
        inside.wait()
        with lock.exclusive():
            events.append("timing")
            time.sleep(0.05)
            events.append("timed")

    def compute_later():
        inside.wait()
        time.sleep(0.5)  # by then the timing waits
        with lock.shared():
            events.append("late computing")

    threads = [threading.Thread(target=time_something), threading.Thread(target=compute_later)]
    for thread in threads:
        thread.start()
    with lock.shared():
        inside.set()
        time.sleep(1.0)
        events.append("computed")
    for thread in threads:
        thread.join()
    # the timing waited for the first computation, and the late one waited for the timing, not the other way round
    assert events == ["computed", "timing", "timed", "late computing"]


def test_computing_is_shared(tmp_path):
    lock = MachineLock(tmp_path)
    with lock.shared(), lock.shared():
        pass


def test_a_lock_survives_pickling(tmp_path):
    import pickle

    with pickle.loads(pickle.dumps(MachineLock(tmp_path))).exclusive():
        pass


HOLDER = """
import sys
from pathlib import Path
from search.trials.machine_lock import MachineLock
with getattr(MachineLock(Path(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


class WaitsError(Exception):
    """Raised instead of a pause, by a lock that would wait."""


@pytest.mark.parametrize(
    ("held", "wanted", "waits"),
    [
        ("shared", "shared", False),
        ("shared", "exclusive", True),
        ("exclusive", "shared", True),
        ("exclusive", "exclusive", True),
    ],
)
def test_a_lock_waits_for_another_process_until_that_is_killed(tmp_path, monkeypatch, held, wanted, waits):
    def wait(seconds):
        raise WaitsError

    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), held],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process, monkeypatch.context() as impatient:
        assert process.stdout.readline() == "held\n"
        impatient.setattr(machine_lock, "pause", wait)
        lock = getattr(MachineLock(tmp_path), wanted)
        if waits:
            with pytest.raises(WaitsError), lock():
                pass
        else:
            with lock():
                pass
        process.kill()
    with lock():
        pass


def studies(folder, *names):
    return [MachineLock(folder, study=name, name=name) for name in names]


def waiting(lock, kind):
    """Starts a thread that wants the lock; returns it, the events that it appends to, and how it held the lock."""
    events, holds = [], []

    def run():
        with getattr(lock, kind)() as hold:
            holds.append(hold)
            events.append(kind)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, events, holds


def wait_until(is_so, seconds=10):
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
    assert is_so()


def test_nobody_waits_for_another_studys_training_but_a_timing(tmp_path):
    """A trains; B wants to time and waits for A; C, which only computes, does not wait for B."""
    a, b, c = studies(tmp_path, "a", "b", "c")
    with a.shared():
        thread, events, _ = waiting(b, "exclusive")
        wait_until(b.waits)
        before = time.monotonic()
        with c.shared() as hold:
            assert hold.waited_s < 1
            assert not events
        with a.shared():
            pass
        assert time.monotonic() - before < 5
    thread.join()
    assert events == ["exclusive"]


def test_a_computation_waits_for_another_studys_timing_that_runs(tmp_path):
    a, b = studies(tmp_path, "a", "b")
    with a.exclusive():
        thread, events, holds = waiting(b, "shared")
        wait_until(b.waits)
        time.sleep(0.2)
        assert not events
        assert not a.waits()
    thread.join()
    assert holds[0].waited_s >= 0.2


def test_a_timing_waits_seconds_for_other_studies_and_then_says_that_they_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_lock, "PATIENCE_S", 0.3)
    a, b = studies(tmp_path, "training", "timing")
    with a.shared(), b.exclusive() as hold:
        assert hold.waited_s >= 0.3
        (beside,) = hold.beside
        assert "study training" in beside
        assert "another study's computation, pid" in beside


def test_a_timing_waits_for_its_own_study_however_long_that_computes(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_lock, "PATIENCE_S", 0.1)
    (lock,) = studies(tmp_path, "own")
    with lock.shared():
        thread, events, holds = waiting(lock, "exclusive")
        time.sleep(0.5)
        assert not events
    thread.join()
    assert holds[0].beside == ()


def test_it_is_known_who_waits_for_whom_and_since_when(tmp_path):
    a, b = studies(tmp_path, "a", "b")
    with a.exclusive():
        thread, _, _ = waiting(b, "shared")
        wait_until(b.waits)
        time.sleep(0.3)
        (wait,) = b.waits()
        assert (wait.is_timing, wait.whom) == (False, f"another study's timing, pid {os.getpid()} (study a)")
        assert 0.2 < wait.seconds < 60
        assert a.waits() == ()
    thread.join()
    assert b.waits() == ()


def test_many_computations_and_timings_exclude_each_other_and_all_get_their_turn(tmp_path):
    locks = studies(tmp_path, "a", "b")
    inside = {"shared": 0, "exclusive": 0}
    guard, broken, done = threading.Lock(), [], []

    def work(lock, kind):
        for _ in range(5):
            with getattr(lock, kind)():
                with guard:
                    inside[kind] += 1
                    if inside["exclusive"] > 1 or (inside["exclusive"] and inside["shared"]):
                        broken.append(dict(inside))
                time.sleep(0.002)
                with guard:
                    inside[kind] -= 1
        done.append(kind)

    threads = [threading.Thread(target=work, args=(lock, kind)) for lock in locks for kind in inside]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert sorted(done) == ["exclusive", "exclusive", "shared", "shared"]


def test_a_note_that_cannot_be_read_is_of_an_unknown_study(tmp_path):
    a, b = studies(tmp_path, "a", "b")
    with a.exclusive():
        next(tmp_path.glob("timing-*.json")).write_text("{")
        thread, _, _ = waiting(b, "shared")
        wait_until(b.waits)
        assert "study unknown" in b.waits()[0].whom
    thread.join()


def test_locks_work_on_a_system_without_user_ids(tmp_path, monkeypatch):
    """Windows: there is neither `fcntl` nor `os.getuid`."""
    monkeypatch.setattr(machine_lock.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delattr(machine_lock.os, "getuid", raising=False)
    with MachineLock().exclusive():
        assert list(tmp_path.iterdir())

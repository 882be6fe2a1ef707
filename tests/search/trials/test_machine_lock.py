import subprocess
import sys
import threading
import time

import pytest
from filelock import Timeout

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
    class Impatient(machine_lock.FileLock):
        def acquire(self, timeout=None, **options):
            return super().acquire(timeout=0 if self.impatient else 60, **options)

    monkeypatch.setattr(machine_lock, "FileLock", Impatient)
    Impatient.impatient = True
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), held],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "held\n"
        lock = getattr(MachineLock(tmp_path), wanted)
        if waits:
            with pytest.raises(Timeout), lock():
                pass
        else:
            with lock():
                pass
        process.kill()
    Impatient.impatient = False
    with lock():
        pass


def test_locks_work_on_a_system_without_user_ids(tmp_path, monkeypatch):
    """Windows: there is neither `fcntl` nor `os.getuid`."""
    monkeypatch.setattr(machine_lock.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delattr(machine_lock.os, "getuid", raising=False)
    with MachineLock().exclusive():
        assert list(tmp_path.iterdir())

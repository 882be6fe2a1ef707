import threading
import time

import pytest

from search.study import waits
from search.study.waits import waits_told
from search.trials.machine_lock import MachineLock


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(waits, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(waits, "_SAY_AFTER_S", 0.2)
    monkeypatch.setattr(waits, "_SAY_EVERY_S", 0.5)


def test_a_study_says_for_whom_it_waits_and_since_when(tmp_path):
    holder, lock = (MachineLock(tmp_path, study=name, name=name) for name in ("a", "b"))
    said = []
    with waits_told(lock, said.append):
        with holder.exclusive():
            thread = threading.Thread(target=lambda: lock.shared().__enter__())
            thread.start()
            time.sleep(1.5)
        thread.join()
    assert 2 <= len(said) <= 3
    assert said[0].startswith("waiting for another study's timing, pid ")
    assert "(study a), since " in said[0]


def test_a_study_that_does_not_wait_says_nothing(tmp_path):
    said = []
    lock = MachineLock(tmp_path, study="a")
    with waits_told(lock, said.append), lock.exclusive():
        time.sleep(0.5)
    assert not said


def test_without_a_lock_there_is_nothing_to_tell():
    with waits_told(None, pytest.fail):
        pass

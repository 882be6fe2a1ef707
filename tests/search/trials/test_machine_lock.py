import threading
import time

from search.trials.machine_lock import MachineLock


def test_timing_waits_for_computing_and_keeps_others_out(tmp_path):
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


def test_it_survives_pickling(tmp_path):
    import pickle

    with pickle.loads(pickle.dumps(MachineLock(tmp_path))).exclusive():
        pass

"""Tells the user what a study waits for, if it waits for long: the lock of the machine is held in other processes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from search.trials.machine_lock import MachineLock

_LOOK_EVERY_S = 2.0
_SAY_AFTER_S = 5.0
_SAY_EVERY_S = 30.0


@contextmanager
def waits_told(lock: MachineLock | None, say: Callable[[str], None]) -> Iterator[None]:
    """Calls `say` from a thread while a trial of the study, in whatever process, waits for more than 5 seconds.

    Args:
        lock: The study's lock; None tells nothing.
        say: Gets a line of text, at most every half a minute: `waiting for another study's timing, pid 12 (study a), since 40 s`.
    """
    if lock is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(lock, say, over), name="paredown-waits", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _tell(lock: MachineLock, say: Callable[[str], None], over: threading.Event) -> None:
    silent_until = 0.0
    while not over.wait(_LOOK_EVERY_S):
        waits = lock.waits()
        if waits and waits[0].seconds >= _SAY_AFTER_S and time.monotonic() >= silent_until:
            silent_until = time.monotonic() + _SAY_EVERY_S
            more = f" ({len(waits) - 1} more wait)" if len(waits) > 1 else ""
            say(
                f"waiting for {waits[0].whom}, since {waits[0].seconds:.0f} s{more}: on one machine, "
                "nothing computes while something is timed"
            )

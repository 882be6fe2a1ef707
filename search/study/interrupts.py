"""Ctrl-C, remembered: the exception that it raises can get lost, in a destructor or in a callback from C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Knows whether there was a SIGINT."""

    def __init__(self) -> None:
        self._seen = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Notes every SIGINT beside what it does anyway; elsewhere than in the main thread it notes nothing."""
        before = signal.getsignal(signal.SIGINT)
        # what is ignored (a job in the background), or not Python's, stays as it is
        if not callable(before) or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._seen = True
            before(number, frame)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def check(self) -> None:
        """Raises what may have got lost.

        Raises:
            KeyboardInterrupt: There was a SIGINT.
        """
        if self._seen:
            raise KeyboardInterrupt

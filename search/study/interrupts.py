"""Records Ctrl-C (SIGINT): its KeyboardInterrupt can be lost in a destructor or in a callback from C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Records whether a SIGINT has arrived."""

    def __init__(self) -> None:
        self._received = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Records every SIGINT, then runs the previous handler; does nothing outside the main thread."""
        before = signal.getsignal(signal.SIGINT)
        # an ignored signal (a job in the background) and a handler that is not Python's are left unchanged
        if not callable(before) or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._received = True
            before(number, frame)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def check(self) -> None:
        """Raises the exception again that may have been lost.

        Raises:
            KeyboardInterrupt: A SIGINT has arrived.
        """
        if self._received:
            raise KeyboardInterrupt

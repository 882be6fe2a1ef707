"""Ctrl-C, remembered: the exception that it raises can get lost, in a destructor or in a callback from C."""

import signal
import threading
from types import FrameType, TracebackType


class Interrupts:
    """While entered, notes every SIGINT beside what it does anyway; elsewhere than in the main thread it notes nothing."""

    def __init__(self) -> None:
        self._seen = False
        self._before: signal._HANDLER = None

    def __enter__(self) -> "Interrupts":
        # what is ignored (a job in the background), or not Python's, stays as it is
        before = signal.getsignal(signal.SIGINT)
        if callable(before) and threading.current_thread() is threading.main_thread():
            self._before = before
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._seen = True
        if callable(self._before):
            self._before(number, frame)

    def check(self) -> None:
        """Raises what may have got lost.

        Raises:
            KeyboardInterrupt: There was a SIGINT.
        """
        if self._seen:
            raise KeyboardInterrupt

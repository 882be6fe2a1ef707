"""Ends a study on Ctrl-C (SIGINT), SIGTERM and SIGHUP without tearing what it writes.

::

    search        the first signal raises KeyboardInterrupt, but not while a result is recorded (`held`)
    the end       signals are counted; the second one skips what is slow: the report and the tracker (`optional`)

Clusters end a job by SIGTERM (Slurm, Kubernetes, Kueue), some of them by a signal to every process of it, and GNU `timeout`
sends two within microseconds: a signal that follows another one at once is the same request.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP
_REPEAT_S = 0.2  # a signal within so many seconds of another one is the same request
_SETTLE_S = 0.5  # a signal to all processes of a job reaches the last of them within this time
_SKIPPED_AT = 2  # signals while the study ends, after which its slow steps are skipped


class _SkipError(BaseException):
    """Ends a slow step of the end."""


class Interrupts:
    """Handles the signals that end a study; a KeyboardInterrupt can be lost in a destructor or in a callback from C.

    Attributes:
        signal: Number of the first signal that arrived; None if none did.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._last = -_REPEAT_S
        self._n_holds = 0
        self._n_while_ending = 0
        self._is_ending = self._is_optional = False

    @property
    def text(self) -> str:
        """What ended the study: `interrupted`, and by which signal, if it was not Ctrl-C."""
        if self.signal is None or self.signal == signal.SIGINT:
            return "interrupted"
        return f"interrupted by {signal.Signals(self.signal).name}"

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Handles the signals; at the end the previous handlers are restored.

        Does nothing outside the main thread, which alone may handle signals. A signal that is ignored (`nohup`, a job in
        the background) or that has a handler which is not Python's is left unchanged.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self._before = {n: handler for n, handler in before.items() if _is_ours_to_handle(n, handler)}
        self.install()
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def install(self) -> None:
        """Sets the handlers (again: Ray sets one of its own when it starts)."""
        for number in self._before:
            signal.signal(number, self._note)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it no signal raises; `check` raises afterwards."""
        self._n_holds += 1
        try:
            yield
        finally:
            self._n_holds -= 1

    def end(self) -> None:
        """From now on the study ends: signals are counted, and no longer raised."""
        self._is_ending = True

    def optional(self, step: Callable[[], object]) -> None:
        """Runs a slow step of the end, unless two signals arrived while the study ends; the second one stops it."""
        if self._n_while_ending >= _SKIPPED_AT:
            return
        self._is_optional = True
        try:
            step()
        except _SkipError:
            pass
        finally:
            self._is_optional = False

    def check(self) -> None:
        """Raises the exception again that may have been lost, or that was held back.

        Raises:
            KeyboardInterrupt: A signal has arrived.
        """
        if self.signal is not None:
            raise KeyboardInterrupt

    def settle(self) -> None:
        """Waits a moment for a signal that ended a worker to arrive here too; called after the death of a worker.

        Raises:
            KeyboardInterrupt: It has arrived: the worker's trial did not fail, but was interrupted.
        """
        until = time.monotonic() + _SETTLE_S
        while time.monotonic() < until:
            self.check()
            time.sleep(0.01)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        repeated, self._last = now - self._last < _REPEAT_S, now
        if self.signal is None:
            self.signal = number
        if repeated:
            return
        if number == getattr(signal, "SIGHUP", None):
            _leave_terminal()
        if self._is_ending:
            self._n_while_ending += 1
            if self._is_optional and self._n_while_ending >= _SKIPPED_AT:
                raise _SkipError
        elif not self._n_holds:
            before = self._before.get(number)
            if number == signal.SIGINT and callable(before):
                before(number, frame)
            raise KeyboardInterrupt


def _is_ours_to_handle(number: int, before: Any) -> bool:
    """Returns whether the signal has a Python handler, or (not SIGINT) the default action, which ends the process."""
    return callable(before) or (number != signal.SIGINT and before is signal.SIG_DFL)


def _leave_terminal() -> None:
    """Redirects output to nowhere where it went to a terminal: after SIGHUP that is closed, and writing to it fails."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)

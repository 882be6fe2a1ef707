"""Makes what a study writes after its search: an error in one output costs neither the others nor the command."""

import contextlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from search.record.redact import redact_text
from spaces.errors import ParedownError

LOG = "errors.log"
T = TypeVar("T")


class Attempts:
    """Makes outputs one by one, and keeps what went wrong in a log file.

    Errors that say what to do (`ParedownError`: a full disk, a wrong setting) are raised, as before.

    Args:
        folder: Where the log file is written.
        passing: Further errors that are raised, e.g. those of a server, after which the caller tries again.
    """

    def __init__(self, folder: Path, passing: tuple[type[Exception], ...] = ()) -> None:
        self._log = folder / LOG
        self._passing: tuple[type[Exception], ...] = (ParedownError, *passing)
        self._failed: dict[str, str] = {}

    def make(self, what: str, step: Callable[[], T]) -> T | None:
        """Returns what a step returns, or None if it raises.

        Args:
            what: The output, as the middle of a sentence, e.g. `report.html`.
            step: Makes it.
        """
        try:
            return step()
        except self._passing:
            raise
        except Exception as error:
            self._failed[what] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            self._keep(what, error)
            return None

    @property
    def message(self) -> str:
        """What failed, why, and where the details are, in one sentence; empty if nothing did."""
        if not self._failed:
            return ""
        failed = ", ".join(f"{what} ({redact_text(why)})" for what, why in self._failed.items())
        return f"Could not make {failed}. All other results are complete; details are in {self._log}"

    def _keep(self, what: str, error: Exception) -> None:
        text = redact_text("".join(traceback.format_exception(error)))
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {what}\n{text}\n")

"""Studies that an agent starts, watches and reads: each is the command `paredown` in a process of its own.

So all that holds on the command line holds here: what is trusted, one writer a folder, errors in one message, a study that is
stopped or killed goes on with the same command.
"""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.agents.overrides import checked_overrides, inside
from search.record.values import cell_text, number
from spaces.errors import ConfigError, StudyError

# `-P`: the current folder brings no modules, as with the installed command
_COMMAND = (sys.executable, "-P", "-c", "from search.cli.app import main; main()")
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,99}")
_ENDS = {
    0: "ended; at least one candidate met the constraints",
    2: "the config is wrong; see the message",
    3: "ended; no candidate met the constraints",
}
_TAIL_CHARS, _MOST_ROWS = 3000, 200
_LONGEST_WAIT_S, _LONGEST_CALL_S, _POLL_S = 60.0, 300.0, 0.3


class Studies:
    """The studies of a folder.

    Args:
        root: The folder: studies are in `root/outputs`, and every file that an agent names is in it.
        most: Studies that may run at once.
    """

    def __init__(self, root: Path, most: int = 1) -> None:
        self.root, self._most = root.resolve(), most
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    # -- running ----------------------------------------------------------------------------------------------

    def command(self, arguments: Sequence[str]) -> str:
        """Runs the command line to its end and returns what it printed.

        Raises:
            ConfigError: It was refused, with its message.
        """
        try:
            done = subprocess.run(
                [*_COMMAND, *arguments], cwd=self.root, capture_output=True, stdin=subprocess.DEVNULL, check=False,
                timeout=_LONGEST_CALL_S, text=True, encoding="utf-8", errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise StudyError(
                f"`paredown {shlex.join(arguments)}` took longer than {_LONGEST_CALL_S:g} s"
            ) from error
        if done.returncode:
            raise ConfigError(done.stderr.strip()[-_TAIL_CHARS:] or f"exit status {done.returncode}")
        return done.stdout

    def plan(self, overrides: Sequence[str]) -> str:
        """Returns what a study would do, without running it: space, size, devices, expected time."""
        return self.command(["dry_run=true", *checked_overrides(overrides, self.root)])

    def start(self, name: str, overrides: Sequence[str]) -> dict[str, Any]:
        """Starts a study, or goes on with it; returns its status.

        Raises:
            ConfigError: The name or an override is refused.
            StudyError: It is running, or too many others are.
        """
        folder = self._folder(name)
        arguments = [
            f"study.name={name}",
            f"study.dir=outputs/{name}",
            *checked_overrides(overrides, self.root),
        ]
        with self._lock:
            busy = [n for n, process in self._running.items() if process.poll() is None]
            if name in busy:
                raise StudyError(f"study {name!r} is running; watch it, or stop it first")
            if len(busy) >= self._most:
                raise StudyError(f"{', '.join(busy)} is running: timings beside another study would be wrong")
            log = self._log(name)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._running[name] = subprocess.Popen(
                    [*_COMMAND, *arguments], cwd=self.root, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
        command = shlex.join(["paredown", *arguments])
        return {"command": command, "folder": str(folder.relative_to(self.root)), **self.status(name)}

    def stop(self, name: str) -> dict[str, Any]:
        """Ends a study's search: front, report and models of the trials so far are written, then it exits."""
        process = self._running.get(name)
        if process is None or process.poll() is not None:
            raise StudyError(f"study {name!r} is not running here")
        process.send_signal(signal.SIGINT)
        return self.status(name, _LONGEST_WAIT_S, only_end=True)

    def close(self) -> None:
        """Ends the studies that run, with everything so far kept."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    # -- reading ----------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Returns the names of the studies that there are."""
        found = sorted(path.parent.name for path in (self.root / "outputs").glob("*/config.yaml"))
        return list(dict.fromkeys([*found, *self._running]))

    def status(self, name: str, wait_s: float = 0.0, *, only_end: bool = False) -> dict[str, Any]:
        """Returns how far a study is.

        Args:
            name: The study.
            wait_s: Seconds to wait, at most a minute, for a trial or the end.
            only_end: Whether to wait for the end only.
        """
        deadline = time.monotonic() + min(max(wait_s, 0.0), _LONGEST_WAIT_S)
        n_before = self._n_trials(name)
        while time.monotonic() < deadline and self._is_running(name):
            if not only_end and self._n_trials(name) > n_before:
                break
            time.sleep(_POLL_S)
        process = self._running.get(name)
        code = None if process is None else process.poll()
        state = "running" if self._is_running(name) else "not started here" if process is None else "ended"
        return {
            "name": name,
            "state": state,
            "exit_status": code,
            "meaning": "" if code is None else _ENDS.get(code, f"interrupted or failed ({code})"),
            "n_trials": self._n_trials(name),
            "output": self._tail(name),
        }

    def results(self, name: str) -> dict[str, Any]:
        """Returns summary.json, the front's rows, and where the files are.

        Raises:
            StudyError: The study has no results yet.
        """
        folder = self._folder(name)
        try:
            summary = json.loads((folder / "summary.json").read_text("utf-8"))
        except FileNotFoundError:
            raise StudyError(f"study {name!r} has no results yet; watch it until it has ended") from None
        models = {
            path.stem.removeprefix("trial_"): self._relative(path)
            for path in sorted((folder / "models").glob("*.onnx"))
        }
        report = folder / "report.html"
        return {
            **summary,
            "front": _rows(folder / "pareto.csv", 0, _MOST_ROWS),
            "models": models,
            "report": self._relative(report) if report.exists() else None,
        }

    def trials(self, name: str, first: int = 0, count: int = 50) -> list[dict[str, Any]]:
        """Returns rows of trials.csv, at most 200: knobs, metrics, costs, state and reason."""
        return _rows(self._folder(name) / "trials.csv", max(0, first), min(max(0, count), _MOST_ROWS))

    # -- files ------------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"study name {name!r}: letters, digits, `_`, `.` and `-` are taken, up to 100 characters"
            )
        return inside(f"outputs/{name}", self.root, "study name")

    def _log(self, name: str) -> Path:
        return inside(f"outputs/.agents/{name}.log", self.root, "study name")

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def _is_running(self, name: str) -> bool:
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def _n_trials(self, name: str) -> int:
        return len(_rows(self._folder(name) / "trials.csv", 0, sys.maxsize))

    def _tail(self, name: str) -> str:
        try:
            with self._log(name).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _TAIL_CHARS))
                return log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


def _rows(path: Path, first: int, count: int) -> list[dict[str, Any]]:
    """Returns rows of a study's table, numbers as numbers; empty cells are left out."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    return [_values(row) for row in rows[first : first + count]]


def _values(row: Mapping[str, str]) -> dict[str, Any]:
    cells = {column: cell for column, cell in row.items() if cell}
    return {
        column: cell_text(cell) if (value := number(cell)) is None else value
        for column, cell in cells.items()
    }

"""A progress bar with the best so far and the time left; plain lines where there is no terminal."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from evaluators.column import Column
from search.record.results import StudyRecord, TrialRecord
from search.study.plan import StudyPlan

_LINE_EVERY_S = 10.0  # seconds between two lines where there is no terminal


class LiveProgress:
    """Draws the progress of a study on a console.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._n_trials = 0

    def begin(self, results: StudyRecord, plan: StudyPlan) -> None:
        """Prints the study's notes, and starts the bar."""
        self._n_trials = plan.n_trials
        for note in (*plan.notes, *plan.learned):
            self._console.print(f"note: {note}", markup=False)
        done = len(results.trials)
        if done:
            self._console.print(
                f"resuming {plan.name} in {plan.folder}: {done} of {plan.n_trials} trials are done",
                markup=False,
            )
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self._console, transient=True,
        )  # fmt: skip
        self._bar.add_task("searching", total=plan.n_trials, completed=done)
        self._bar.start()

    def trial(self, record: TrialRecord, results: StudyRecord) -> None:
        """Moves the bar, or prints a line every 10 seconds."""
        text = best_text(results)
        if record.state == "failed":
            self._console.print(f"trial {record.number} failed: {record.reason}", markup=False)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=len(results.trials), description=text)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_S or len(results.trials) == self._n_trials:
            self._last_line = now
            self._console.print(f"{len(results.trials)}/{self._n_trials} trials, {text}", markup=False)

    def message(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, markup=False)

    def end(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def best_text(results: StudyRecord) -> str:
    """Returns the best trial so far, as text with its first two objectives."""
    if results.best is None:
        return "nothing feasible yet"
    values = results.trial(results.best).values()
    figures = [f"{Column.parse(o.column).short} {values[o.column]:.4g}" for o in results.objectives[:2]]
    return f"best so far: trial {results.best}, {', '.join(figures)}"

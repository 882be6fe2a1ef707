"""A progress bar with the best so far and the time left; plain lines where there is no terminal."""

import time
from collections import Counter

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
from search.record.results import StudyRecord, TrialRecord, model_name
from search.report.findings.figures import is_on_validation
from search.study.plan import StudyPlan

_BESIDE = 42  # columns of a short bar, the counts and the times
_BEST = "best so far: "
_LINE_EVERY_S = 10.0  # seconds between two lines where there is no terminal


class LiveProgress:
    """Draws the progress of a study on a console.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._last_line, self._last_text, self._quiet_s = 0.0, "", _LINE_EVERY_S
        self._failures: Counter[str] = Counter()
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
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self._console, transient=True, expand=True,
        )  # fmt: skip
        self._bar.add_task("searching", total=plan.n_trials, completed=done)
        self._bar.start()

    def trial(self, record: TrialRecord, results: StudyRecord) -> None:
        """Moves the bar, or prints a line: at most every 10 seconds, and ever more rarely while the best trial is the same."""
        text = best_text(results)
        if record.state == "failed":
            self._failed(record)
        if self._bar is not None:
            short = _shortened(text, self._console.width - _BESIDE)
            self._bar.update(self._bar.task_ids[0], completed=len(results.trials), description=short)
            return
        now = time.monotonic()
        quiet_s = self._quiet_s if text == self._last_text else _LINE_EVERY_S
        if now - self._last_line >= quiet_s or len(results.trials) == self._n_trials:
            self._quiet_s = 2 * quiet_s if text == self._last_text else _LINE_EVERY_S
            self._last_line, self._last_text = now, text
            self._console.print(f"{len(results.trials)}/{self._n_trials} trials, {text}", markup=False)

    def _failed(self, record: TrialRecord) -> None:
        """Prints why a trial failed, the first time that one fails for this reason."""
        reason = str(record.reason)
        self._failures[reason] += 1
        if self._failures[reason] == 1:
            self._console.print(f"trial {record.number} failed: {reason}", markup=False)

    def message(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, markup=False)

    def end(self) -> None:
        """Removes the bar, and says how often trials failed for the same reasons."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        for reason, count in self._failures.items():
            if count > 1:
                self._console.print(f"{count} trials failed: {reason}", markup=False)
        self._failures.clear()


def _shortened(text: str, most: int) -> str:
    """Returns what fits beside the bar, so that the times are whole: fewer figures, without the first words, or the model alone."""
    fewer = text.rpartition(", ")[0] or text
    shorter = (text, fewer, fewer.removeprefix(_BEST), fewer.removeprefix(_BEST).partition(", ")[0])
    return next((each for each in shorter if len(each) <= most), shorter[-1])


def best_text(results: StudyRecord) -> str:
    """Returns the best trial so far, as text with its first two objectives."""
    if results.best is None:
        return "nothing feasible yet"
    values = results.trial(results.best).values()
    names = [
        f"{'validation ' * is_on_validation(results, o.column)}{Column.parse(o.column).short}"
        for o in results.objectives[:2]
    ]
    figures = [f"{name} {values[o.column]:.4g}" for name, o in zip(names, results.objectives, strict=False)]
    return f"{_BEST}{model_name(results.best)}, {', '.join(figures)}"

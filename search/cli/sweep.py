"""Summarises a sweep in one table and one HTML page, with means and intervals over seeds.

For studies on a table (`experiment=tabular`): the number of trials that each sampler needed on each task. For
all others: what each ships to each device, by the settings in which they differ (see `search.cli.fleet`); `sweep.csv`
has the results in their `summary.json` (see `Outcome`) by sampler and by the other settings that the sweep varied.

Usage::

    paredown --multirun experiment=tabular tabular.path=FILE.csv tabular.task=a,b sampler=random,tpe seed=0,1,2
    paredown --multirun model=digits_cnn,mlp 'device=[stm32h743],[esp32_s3_tflm]' seed=0,1,2
    paredown-results FOLDER [FOLDER ...]
    paredown-results --networks FOLDER [FOLDER ...]
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from evaluators.column import Column
from search.cli.agreement import agreement
from search.cli.fleet import Fleet, Shipped, fleet, read_shipped, read_summary
from search.cli.fleet_tables import html_page, terminal_table
from search.cli.networks import networks_page, networks_table, summary, trained
from search.cli.statistics import geometric_mean, half_width, interval
from search.record.values import text_cell
from search.report.attempts import Attempts
from search.report.console import PlainConsole
from spaces.errors import InputError, ParedownError
from spaces.stages.cache import write_atomic

OVER_TASKS = ("mean over tasks", "geometric mean over tasks")
_TARGET = "trials_to_"  # what the numbers of trials begin with in summary.json
_VALUES = ("hypervolume", "n_trials", "n_complete", "wall_s")  # of summary.json
_ENDS = ("_low", "_high")  # suffixes of the ends of intervals within one study
_MOST_FILES = 12  # named below the printed table
_FILE_WIDTH = 160  # columns of the printed table if the output is not a terminal


@dataclass(frozen=True)
class Run:
    """One study over a table: per target the number of trials that it needed, None if it was not reached.

    Raises:
        KeyError: There is no target.
    """

    sampler: str
    task: str
    n_trials: int
    trials_to: dict[str, int | None]

    def __post_init__(self) -> None:
        if not self.trials_to:
            raise KeyError(f"{_TARGET}*")


@dataclass(frozen=True)
class Outcome:
    """One study of a sweep that was not over a table.

    Attributes:
        sampler: Name of the sampler.
        task: `study.name` without the sampler and the seed: equal for studies that differ in these only.
        values: Hypervolume, numbers of trials, seconds, and the metrics of the best model, by name; None if
            absent.
    """

    sampler: str
    task: str
    values: dict[str, float | None]


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        sampler: Name of the sampler.
        task: Name of the task, or one of `OVER_TASKS`.
        target: `trials_to_best`, `trials_to_0.1`, `trials_to_0.5`; with several objectives `trials_to_90%`,
            `trials_to_95%`, `trials_to_99%`; for an `Outcome` the name of a value.
        n_runs: Number of studies (seeds).
        n_unreached: Number of studies that ended before the target; each enters the mean with the trials that
            it ran, so that the mean is a lower bound. For an `Outcome` the number of studies without the
            value; the mean is over the others.
        mean: Mean of the numbers of trials, or of the value.
        low: Lower end of the 95 % interval over seeds; NaN for a single run.
        high: Upper end.
    """

    sampler: str
    task: str
    target: str
    n_runs: int
    n_unreached: int
    mean: float
    low: float
    high: float

    def text(self) -> str:
        """Returns mean, interval and number of unreached targets as text for the printed table."""
        counted = self.target.startswith(_TARGET)
        bound = "≥ " if counted and self.n_unreached else ""
        mean, low, high = (f"{v:.1f}" if counted else f"{v:.4g}" for v in (self.mean, self.low, self.high))
        interval = "" if math.isnan(self.low) else f" [{low}, {high}]"
        missed = f" ({self.n_unreached} of {self.n_runs} missed)" if self.n_unreached else ""
        return f"{bound}{mean}{interval}{missed}"


@dataclass(frozen=True)
class Read:
    """What was found below the folders.

    Attributes:
        runs: A record for each study.
        shipped: What those that were not on a table ship to each device.
    """

    runs: list[Run | Outcome]
    shipped: list[Shipped]


def read_studies(folders: Sequence[Path]) -> Read:
    """Reads every `summary.json` below the folders; those without results are left out.

    Raises:
        InputError: A folder is missing, a file is damaged, or there is no finished study.
    """
    paths: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; give the folder that holds the studies of the sweep")
        paths.update(dict.fromkeys(path.resolve() for path in sorted(folder.rglob("summary.json"))))
    read = Read([], [])
    for path in paths:
        _read_study(path, read)
    if not read.runs:
        where = ", ".join(map(str, folders))
        raise InputError(
            f"{where} holds no finished study: none of {len(paths)} files summary.json contains results; "
            "give the folder that the sweep wrote its studies to (default: outputs)"
        )
    return read


def _read_study(path: Path, read: Read) -> None:
    """Adds a study to what was read, if its summary has results."""
    summary = read_summary(path)
    if not isinstance(summary, dict):
        return
    kind = "a study on a table" if summary.get("tabular") else "a study"
    try:
        run = _run(summary) if summary.get("tabular") else _outcome(summary)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} lacks what {kind} writes: {error!r}") from error
    if run is not None:
        read.runs.append(run)
        if isinstance(run, Outcome):
            read.shipped.extend(read_shipped(path, summary))


def _run(summary: Mapping[str, Any]) -> Run:
    task = str(summary["tabular"]["task"])
    trials_to = {t: None if n is None else int(n) for t, n in summary.items() if t.startswith(_TARGET)}
    return Run(str(summary["sampler"]), task, int(summary["n_trials"]), trials_to)


def _outcome(summary: Mapping[str, Any]) -> Outcome | None:
    best: Mapping[str, Any] = summary.get("best") or {}
    results = {
        **{key: summary[key] for key in _VALUES if key in summary},
        **{
            f"best {name}": value
            for name, value in best.get("metrics", {}).items()
            if not name.endswith(_ENDS)
        },
        **{
            f"best {Column.of(name, device)}": value
            for device, costs in best.get("costs", {}).items()
            for name, value in costs.items()
            if not name.endswith(_ENDS)
        },
    }
    if not results:
        return None
    values = {key: None if value is None else float(value) for key, value in results.items()}
    return Outcome(str(summary["sampler"]), _setting(str(summary["study"])), values)


def _setting(study: str) -> str:
    """Returns a study's name in a sweep without sampler and seed.

    `digits-sampler=tpe,seed=3,space=prune` becomes `digits-space=prune`.
    """
    name, dash, suffix = study.partition("-")
    while dash and "=" not in suffix.partition("-")[0]:  # a dash of the name itself
        more, dash, suffix = suffix.partition("-")
        name += f"-{more}"
    kept = [part for part in suffix.split(",") if part.partition("=")[0] not in ("sampler", "seed")]
    return f"{name}-{','.join(kept)}" if any(kept) else name


def summarise_outcomes(outcomes: Sequence[Outcome]) -> list[Row]:
    """Returns a row per sampler, setting and value that at least one of the studies has."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.sampler, outcome.task), []).append(outcome)
    rows = []
    for (sampler, task), group in groups.items():
        for name in dict.fromkeys(name for outcome in group for name in outcome.values):
            present = [v for outcome in group if (v := outcome.values.get(name)) is not None]
            if present:
                ends = interval(present)
                rows.append(
                    Row(
                        sampler,
                        task,
                        name,
                        len(group),
                        len(group) - len(present),
                        float(np.mean(present)),
                        *ends,
                    )
                )
    return rows


def summarise(runs: Sequence[Run]) -> list[Row]:
    """Returns one row per sampler, target and task, and the means over tasks if there are several."""
    return [
        row
        for sampler in dict.fromkeys(run.sampler for run in runs)
        for target in dict.fromkeys(target for run in runs for target in run.trials_to)
        for row in _of_target(sampler, target, [run for run in runs if target in run.trials_to])
    ]


def _of_target(sampler: str, target: str, runs: Sequence[Run]) -> list[Row]:
    """Returns a sampler's rows of one target, over the runs that have it."""
    tasks = dict.fromkeys(run.task for run in runs)
    groups = {task: [r for r in runs if (r.sampler, r.task) == (sampler, task)] for task in tasks}
    counts = {task: _counts(group, target) for task, group in groups.items() if group}
    rows = [
        _row(sampler, task, target, groups[task], float(np.mean(numbers)), interval(numbers))
        for task, numbers in counts.items()
    ]
    if len(tasks) > 1 and counts:
        rows += _overall(sampler, target, runs, list(counts.values()))
    return rows


def _counts(runs: Sequence[Run], target: str) -> list[int]:
    reached = [(run.trials_to[target], run.n_trials) for run in runs]
    return [n_trials if n is None else n for n, n_trials in reached]


def _row(
    sampler: str, task: str, target: str, runs: Sequence[Run], mean: float, ends: tuple[float, float]
) -> Row:
    unreached = sum(run.trials_to[target] is None for run in runs)
    return Row(sampler, task, target, len(runs), unreached, mean, *ends)


def _overall(
    sampler: str, target: str, runs: Sequence[Run], counts: Sequence[Sequence[int]]
) -> Iterator[Row]:
    """Yields the means over tasks. Their intervals are over seeds only, since the tasks are not sampled."""
    own = [run for run in runs if run.sampler == sampler]
    means = np.array([np.mean(numbers) for numbers in counts])
    mean, geometric = float(means.mean()), geometric_mean(means)
    half = half_width(counts, np.full(len(counts), 1 / len(counts)))
    factor = math.exp(half_width(counts, 1 / (len(counts) * means)))  # of the mean logarithm, to first order
    yield _row(sampler, OVER_TASKS[0], target, own, mean, (mean - half, mean + half))
    yield _row(sampler, OVER_TASKS[1], target, own, geometric, (geometric / factor, geometric * factor))


def counted_table(rows: Sequence[Row]) -> Table:
    """Returns the table of studies on a table: a line per sampler and task, a column per target."""
    targets = list(dict.fromkeys(row.target for row in rows))
    table = Table("sampler", "task", "runs", *targets)
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.sampler, row.task), {})[row.target] = row
    before = None
    for (sampler, task), by_target in lines.items():
        if before not in (None, sampler):
            table.add_section()
        before = sampler
        texts = (by_target[t].text() if t in by_target else "" for t in targets)
        table.add_row(Text(sampler), Text(task), str(next(iter(by_target.values())).n_runs), *texts)
    return table


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Writes the rows as CSV.

    Raises:
        InputError: The file cannot be written.
    """
    import pandas as pd

    try:
        texts = ("sampler", "task", "target")
        cells = ({k: text_cell(v) if k in texts else v for k, v in asdict(row).items()} for row in rows)
        pd.DataFrame(cells).to_csv(path, index=False)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 if an argument or a file is wrong."""
    parser = argparse.ArgumentParser(
        prog="paredown-results",
        description="One table, and one HTML page, of the studies in folders, whatever they differ in: what each ships to each "
        "device, with means and 95 % intervals over seeds. Of studies on a table: the number of trials that each sampler "
        "needed on each task.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="folder that contains studies, at any depth"
    )
    parser.add_argument("--output", type=Path, help="the CSV file (default: sweep.csv in the first FOLDER)")
    parser.add_argument(
        "--networks",
        action="store_true",
        help="list the trained architectures of all studies (networks.csv, networks.html)",
    )
    parser.add_argument(
        "--metric", help="with --networks: the metric to order by (default: the first that was measured)"
    )
    parser.add_argument("--page", type=Path, help="the HTML page (default: sweep.html beside the CSV file)")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has printed the error
        return int(stop.code or 0)
    path = given.output or given.folders[0] / ("networks.csv" if given.networks else "sweep.csv")
    try:
        if given.networks:
            _write_networks(given.folders, given.metric, path, given.page or path.with_suffix(".html"))
            return 0
        title = ", ".join(folder.resolve().name for folder in given.folders)
        write_sweep(read_studies(given.folders), path, given.page or path.with_suffix(".html"), title)
    except ParedownError as error:
        PlainConsole(stderr=True).print(f"paredown-results: {error}", soft_wrap=True)
        return 2
    return 0


def write_sweep(read: Read, path: Path, page: Path, title: str) -> None:
    """Writes the CSV file, the page if there is something to ship, and prints the tables.

    Args:
        read: The studies.
        path: The CSV file.
        page: The HTML page.
        title: Its heading.

    Raises:
        InputError: The CSV file cannot be written.
    """
    counted = summarise([run for run in read.runs if isinstance(run, Run)])
    others = summarise_outcomes([run for run in read.runs if isinstance(run, Outcome)])
    write_rows([*counted, *others], path)
    console = PlainConsole()
    if not console.is_terminal:
        console = PlainConsole(width=_FILE_WIDTH)
    if counted:
        console.print(counted_table(counted))
    written = [path]
    outputs = Attempts(path.parent)
    if read.shipped:
        found = fleet(read.shipped)
        if outputs.make(page.name, lambda: _page_written(html_page(found, title, page.parent), page)):
            written.append(page)
        console.print(terminal_table(found))
        for text in (*agreement(found), *_models(found)):
            console.print(text, soft_wrap=not console.is_terminal)
    _print_ends(console, [f"written to {file}" for file in written], outputs)


def _models(found: Fleet) -> Iterator[str]:
    """Yields the file of each line that is of a single study; those of many are linked in the page."""
    alone = [line for line in found.lines if len(line.shipped) == 1]
    for line in alone if len(alone) <= _MOST_FILES else []:
        if (path := line.shipped[0].model) is not None:
            what = ", ".join(
                (*(f"{k}={v}" for k, v in zip(found.settings, line.settings, strict=True)), line.device)
            )
            yield f"file for {what}: {os.path.relpath(path)}"


def _write_networks(folders: Sequence[Path], metric: str | None, path: Path, page: Path) -> None:
    """Writes both files of the architectures and prints the best of them."""
    rows, column = trained(folders, metric)
    texts = rows.map(lambda cell: text_cell(cell) if isinstance(cell, str) else cell)
    outputs, title = Attempts(path.parent), ", ".join(folder.resolve().name for folder in folders)
    _page_written(texts.to_csv(index=False), path)
    written = [path]
    if outputs.make(page.name, lambda: _page_written(networks_page(rows, column, title), page)):
        written.append(page)
    console = PlainConsole()
    if not console.is_terminal:
        console = PlainConsole(width=_FILE_WIDTH)
    console.print(networks_table(rows, column))
    _print_ends(console, [*summary(rows, column), *(f"written to {file}" for file in written)], outputs)


def _print_ends(console: PlainConsole, lines: Sequence[str], outputs: Attempts) -> None:
    """Prints what follows the tables: what was written, and what could not be."""
    for line in lines:
        console.print(line, soft_wrap=True)
    if outputs.message:
        PlainConsole(stderr=True).print(f"paredown-results: {outputs.message}", soft_wrap=True)


def _page_written(text: str, path: Path) -> bool:
    """Writes a file and returns true. Raises InputError if it cannot be written."""
    try:
        write_atomic(path, text.encode("utf-8", "replace"), durable=False)
    except (OSError, ParedownError) as error:
        raise InputError(f"{path} cannot be written: {error}") from error
    return True


def run() -> None:
    """Runs `paredown-results` and exits with its status."""
    sys.exit(main())

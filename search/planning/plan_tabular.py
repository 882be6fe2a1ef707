"""Makes the plan of a study whose objective is a table."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.executors.serial import SerialExecutor
from search.planning.basics import basics
from search.planning.config.schema import Config
from search.planning.identity import tabular_identity
from search.planning.samplers_for import sampler_factory
from search.planning.tabular.goal import TableGoal
from search.planning.tabular.known import KnownColumns
from search.planning.tabular.problem import TabularProblem, measurement_of
from search.record.objectives import read_columns, read_objectives
from search.study.plan import StudyPlan
from search.trials.trial import TrialRequest, TrialResult
from spaces.candidate import Candidate
from spaces.errors import ConfigError, StageError, unknown_name

_KEYS = ("path", "task", "metric", "direction", "stop_at_best", "stop_at_share", "known")
_VOLUME_NOTE = "`hypervolume` is the share of the hypervolume of the table's front that the trials have found"


@dataclass(frozen=True)
class TableRunner:
    """Runs a trial by looking up the candidate's row in the table."""

    problem: TabularProblem

    def key(self, candidate: Candidate) -> str:
        """Returns the index of the candidate's row.

        Raises:
            StageError: The candidate is not a row of the table.
        """
        row = self.problem.row(candidate)
        if row is None:
            raise StageError(f"{candidate!r} is not a row of the table")
        return str(row.index)

    def run(self, request: TrialRequest) -> TrialResult:
        """Returns the row's numbers."""
        row = self.problem.row(request.candidate)
        values = {} if row is None else self.problem.values(row)
        measurements = tuple(measurement_of(column, value) for column, value in values.items())
        return TrialResult(request.id, request.candidate, "measured", measurements=measurements)

    def nearest(self, candidate: Candidate, measured_keys: Collection[str]) -> Candidate | None:
        """Returns the nearest row that has not been measured; None if all have been."""
        row = self.problem.nearest(candidate, {int(key) for key in measured_keys})
        return None if row is None else Candidate(row.knobs)


def plan_tabular(config: Config) -> StudyPlan:
    """Returns the plan of a study on a table.

    Raises:
        ConfigError: A key of the `tabular` or the `objective` section is wrong, or no row keeps the limits.
        InputError: The table is missing or wrong, or every row lacks a value that the study needs.
    """
    section = _section(config)
    problem = _problem(section, config.seed)
    goal = _goal(config, problem, section)
    space = problem.space()
    rows = [Candidate(knobs) for knobs in problem.candidates]
    runner = TableRunner(problem)
    return StudyPlan(
        **basics(config),
        n_trials=min(config.study.n_trials, len(rows)),
        space=space,
        objectives=goal.objectives,
        constraints=goal.constraints,
        devices=tuple(problem.measured.devices),
        sampler=sampler_factory(
            config,
            space,
            goal.objectives,
            rows,
            problem.knowledge(goal.objectives[0].column),
            problem.descriptors,
            _known(section, problem, goal),
            baselines=[problem.baseline(o.column) for o in goal.objectives],
        ),
        runner=runner,
        executor=SerialExecutor(),  # a look-up needs no worker process
        identity=tabular_identity(problem, goal.objectives, goal.constraints),
        baseline=(),
        notes=_notes(goal, len(rows)),
        stop_when=goal.reached if section.get("stop_at_best", True) else None,
        extra_summary=lambda results: {
            "tabular": {"path": str(section["path"]), "task": problem.task, "metric": problem.metric},
            **goal.progress(results),
        },
        pool=rows,
        snap=runner.nearest,
        volume=goal.volume,
    )


def _notes(goal: TableGoal, n_rows: int) -> tuple[str, ...]:
    lacking = (
        f"{goal.n_failed} of {n_rows} rows lack a value that objectives or limits need: their trials fail"
    )
    return (*((lacking,) if goal.n_failed else ()), *(() if goal.volume is None else (_VOLUME_NOTE,)))


def _section(config: Config) -> dict[str, Any]:
    section = config.section("tabular")
    unknown = [key for key in section if key not in _KEYS]
    if unknown:
        raise ConfigError(unknown_name("key", unknown[0], _KEYS, "tabular"))
    if section.get("path") in (None, "???"):
        raise ConfigError("tabular.path must be given: the CSV file to search, e.g. tabular.path=table.csv")
    return section


def _problem(section: Mapping[str, Any], seed: int) -> TabularProblem:
    return TabularProblem(
        Path(str(section["path"])),
        section.get("task"),
        section.get("metric"),
        section.get("direction", "maximize"),
        seed,
    )


def _goal(config: Config, problem: TabularProblem, section: Mapping[str, Any]) -> TableGoal:
    """Returns the goal: what `objective` says, in which `metric` is `tabular.metric`; without it that metric alone."""
    stated = config.data.get("objective")
    axes = config.section("objective") if stated else {"maximize": "metric"}
    objectives, constraints = read_objectives(axes, problem.measured, str(problem.table.path))
    return TableGoal(problem, objectives, constraints, _share(section.get("stop_at_share", 1.0)))


def _share(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= 1:
        raise ConfigError(
            f"tabular.stop_at_share must be a share of the front's hypervolume, above 0 and at most 1, e.g. 0.95, not {given!r}"
        )
    return float(given)


def _known(section: Mapping[str, Any], problem: TabularProblem, goal: TableGoal) -> KnownColumns | None:
    columns = read_columns(section.get("known"), "tabular.known", problem.measured, str(problem.table.path))
    used = [*(o.column for o in goal.objectives), *(c.column for c in goal.constraints)]
    for column in columns:
        if column not in used:
            raise ConfigError(
                f"tabular.known: {column} is neither an objective nor limited by a constraint, so that it is of no use; known "
                f"may be: {', '.join(dict.fromkeys(used))}"
            )
    return KnownColumns(problem, goal.objectives, goal.constraints, columns) if columns else None

"""Makes the plan of a study whose objective is a table."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.base import Measurement
from evaluators.column import Column
from search.executors.serial import SerialExecutor
from search.planning.basics import basics
from search.planning.config.schema import Config
from search.planning.identity import tabular_identity
from search.planning.samplers_for import sampler_factory
from search.planning.tabular import TabularProblem
from search.record.results import Objective, StudyRecord
from search.study.plan import StudyPlan
from search.trials.trial import TrialRequest, TrialResult
from spaces.candidate import Candidate
from spaces.errors import ConfigError, StageError, unknown_name
from spaces.knobs import Choices, Knob
from spaces.space import Space

_KEYS = ("path", "task", "metric", "direction", "stop_at_best")


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
        """Returns the row's metrics."""
        metrics = self.problem.lookup(request.candidate) or {}
        measurements = tuple(Measurement(name, value, "", "measured") for name, value in metrics.items())
        return TrialResult(request.id, request.candidate, "measured", measurements=measurements)

    def nearest(self, candidate: Candidate, measured_keys: Collection[str]) -> Candidate | None:
        """Returns the nearest row that has not been measured; None if all have been."""
        row = self.problem.nearest(candidate, {int(key) for key in measured_keys})
        return None if row is None else Candidate(row.knobs)


def plan_tabular(config: Config) -> StudyPlan:
    """Returns the plan of a study on a table.

    Raises:
        ConfigError: A key of the `tabular` section is wrong.
        InputError: The table is missing or wrong.
    """
    section = config.section("tabular")
    problem = _problem(section, config.seed)
    space = Space([Knob(name, Choices(tuple(d["choices"]))) for name, d in problem.space_config().items()])
    objectives = (Objective(str(Column.of(problem.metric)), problem.direction),)
    rows = [Candidate(knobs) for knobs in problem.candidates]
    runner = TableRunner(problem)
    return StudyPlan(
        **basics(config),
        n_trials=min(config.study.n_trials, len(rows)),
        space=space,
        objectives=objectives,
        constraints=(),
        devices=(),
        sampler=sampler_factory(
            config,
            space,
            objectives,
            rows,
            problem.knowledge,
            problem.descriptors,
            baselines=(problem.baseline,),
        ),
        runner=runner,
        executor=SerialExecutor(),  # a look-up needs no worker process
        identity=tabular_identity(problem),
        baseline=(),
        stop_when=_best_found(problem) if section.get("stop_at_best", True) else None,
        extra_summary=lambda results: {
            "tabular": {"path": str(section["path"]), "task": problem.task, "metric": problem.metric},
            **_progress(problem, results),
        },
        pool=rows,
        snap=runner.nearest,
    )


def _best_found(problem: TabularProblem) -> Callable[[StudyRecord], bool]:
    return lambda results: _progress(problem, results)["trials_to_best"] is not None


def _problem(section: Mapping[str, Any], seed: int) -> TabularProblem:
    unknown = [key for key in section if key not in _KEYS]
    if unknown:
        raise ConfigError(unknown_name("key", unknown[0], _KEYS, "tabular"))
    path = section.get("path")
    if path in (None, "???"):
        raise ConfigError("tabular.path must be given: the CSV file to search, e.g. tabular.path=table.csv")
    return TabularProblem(
        Path(str(path)),
        section.get("task"),
        section.get("metric"),
        section.get("direction", "maximize"),
        seed,
    )


def _progress(problem: TabularProblem, results: StudyRecord) -> dict[str, int | None]:
    column = str(Column.of(problem.metric))
    return problem.progress([t.values().get(column) for t in results.trials])

"""One run of the command: the plan of a config, and the texts printed before and after the search."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.planning.config.schema import Config
from search.record import study_files as files
from search.record.redact import redact, redact_command
from search.record.results import Constraint
from search.study.plan import StudyPlan
from search.study.study import Outcome
from spaces.errors import InputError


@dataclass(frozen=True)
class Session:
    """A plan, with the config that it came from.

    Attributes:
        config: The config.
        plan: The plan.
        stages: Names of the stages, in order.
    """

    config: Config
    plan: StudyPlan
    stages: tuple[str, ...] = ()

    def description(self) -> RenderableType:
        """Returns the text that `dry_run=true` prints."""
        plan = self.plan
        table = Table(title="the space", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("knob", "values", ""):
            table.add_column(heading, overflow="fold")
        for row in plan.space.rows():
            table.add_row(*map(Text, row))
        lines = [
            f"study        {plan.name}, {plan.n_trials} trials by {plan.sampler_name}, in {plan.folder}",
            f"candidates   {plan.space.size}",
            f"constraints  {'; '.join(c.text for c in plan.space.constraints) or 'none between knobs'}",
            f"stages       {' -> '.join(self.stages) or 'none: a table is the objective'}",
            f"devices      {', '.join(plan.devices) or 'none'}",
            f"objectives   {', '.join(f'{o.direction} {o.column}' for o in plan.objectives)}",
            f"limits       {'; '.join(_limit(c) for c in plan.constraints) or 'none'}",
            *(f"note         {note}" for note in plan.notes),
            *(f"knowledge    {text}" for text in plan.learned),
        ]
        if plan.measuring_s is not None:
            lines.append(f"time         {_expected(plan.n_trials * plan.measuring_s / plan.executor.slots)}")
        lines.append("dry_run=true: no trial was run")
        return Group(table, Text(""), *(Text(line) for line in lines))

    def closing(self, outcome: Outcome, width: int) -> RenderableType:
        """Returns the text that is printed at the end, for a terminal that is `width` columns wide."""
        from search.report.attempts import Attempts
        from search.report.findings.time_spent import cost_report
        from search.report.terminal import closing_table

        outputs = Attempts(self.plan.folder)
        prediction = outcome.results.prediction
        ended = f"ended: {outcome.why}" + (
            f"; {prediction}" if prediction and prediction not in outcome.why else ""
        )
        cost = ""
        if self.config.study.cost_report:
            cost = outputs.make("the line on time", lambda: cost_report(outcome.results)) or ""
        told = [Text(text) for text in (ended, cost) if text]
        if address := self.plan.tracker.address():
            told.insert(0, Text(address, no_wrap=True, overflow="ignore"))  # whole, to be copied
        table = closing_table(outcome.results, width, outputs)
        failed = [Text(text, style="bold red") for text in (outcome.failed, outputs.message) if text]
        return Group(table, *told, *failed)


def prepare(config: Config, say: Callable[[str], None], began: float | None = None) -> Session:
    """Loads everything and returns the session.

    Raises:
        ParedownError: Something in the config or the files is wrong.
    """
    began = time.monotonic() if began is None else began
    session = _prepared(config, say)
    return replace(session, plan=replace(session.plan, start_s=time.monotonic() - began))


def _prepared(config: Config, say: Callable[[str], None]) -> Session:
    if not config.data["dry_run"]:
        files.make_folder(config.study.folder)
    if config.data.get("tabular") is not None:
        from search.planning.plan_tabular import plan_tabular

        return Session(config, _recorded(plan_tabular(config)))
    from search.planning.kinds import check_kinds
    from search.planning.loading import load
    from search.planning.plan_compression import plan_compression

    check_kinds(config)
    try:
        loaded = load(config, say)
    except OSError as error:  # a folder that cannot be read or written, e.g. cache_dir
        raise InputError(f"cannot use {error.filename}: {error.strerror or error}") from error
    plan = plan_compression(config, loaded, say)
    stages = tuple(str(name) for name in config.section("stage"))
    return Session(config, _recorded(plan), stages)


def _recorded(plan: StudyPlan) -> StudyPlan:
    """Returns the plan with a command without secrets, and with the content of config.yaml: resolved config, versions, digests of model and data."""
    digests = {key: value for key, value in plan.identity.items() if key in ("model", "task", "table")}
    command = redact_command(plan.command)
    record = {
        "command": command,
        "config": redact(dict(plan.config)),
        "versions": dict(plan.environment),
        "digests": digests,
        **plan.record,
    }
    return replace(plan, command=command, record=record)


def _limit(constraint: Constraint) -> str:
    relation, margin_sign = ("<=", "-") if constraint.kind == "max" else (">=", "+")
    margin = f" {margin_sign} {constraint.margin:g}" if constraint.margin else ""
    return f"{constraint.column} {relation} {constraint.limit:g}{margin}"


def _expected(measuring_s: float) -> str:
    """What is known without building a candidate: measuring one takes about as long as measuring the float model."""
    return f"about {_duration(measuring_s)} to measure all trials; what it takes to build or train them comes on top"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

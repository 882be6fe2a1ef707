"""One run of the command: from a config to a plan, and what is told before and after."""

from collections.abc import Callable
from dataclasses import dataclass, field

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.config import Config
from search.environment import environment
from search.report.redact import redact
from search.study import Outcome, StudyPlan
from spaces.cache import write_atomic
from spaces.errors import StudyError


@dataclass(frozen=True)
class Session:
    """A plan, with the config that it came from.

    Attributes:
        config: The config.
        plan: The plan.
        stages: Names of the stages, in order.
        expected_s: Guessed seconds of the whole study; None if there is nothing to guess from.
    """

    config: Config
    plan: StudyPlan
    stages: tuple[str, ...] = ()
    expected_s: float | None = None
    layers: tuple[str, ...] = field(default=())

    def write_config(self) -> None:
        """Writes config.yaml: the resolved config, versions, and digests of model and data."""
        record = {
            "command": self.config.command,
            "config": redact(dict(self.config.data)),
            "versions": environment(),
            "digests": {
                key: value for key, value in self.plan.identity.items() if key in ("model", "task", "table")
            },
        }
        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
        try:
            write_atomic(self.plan.folder / "config.yaml", text.encode())
        except OSError as error:
            raise StudyError(
                f"study.dir: cannot write to {self.plan.folder}: {error.strerror}; choose a folder that you may write"
            ) from error

    def description(self) -> RenderableType:
        """Returns what `dry_run=true` prints."""
        plan = self.plan
        table = Table(title="the space", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("knob", "values", ""):
            table.add_column(heading, overflow="fold")
        for row in plan.space.rows():
            table.add_row(*row)
        lines = [
            f"study        {plan.name}, {plan.n_trials} trials by {plan.sampler_name}, in {plan.folder}",
            f"candidates   {plan.space.size}",
            f"constraints  {'; '.join(c.text for c in plan.space.constraints) or 'none between knobs'}",
            f"stages       {' -> '.join(self.stages) or 'none: a table is the objective'}",
            f"devices      {', '.join(plan.devices) or 'none'}",
            f"objectives   {', '.join(f'{o.direction} {o.column}' for o in plan.objectives)}",
            f"must hold    {'; '.join(_limit(c.column, c.kind, c.limit) for c in plan.constraints) or 'nothing'}",
            *(f"note         {note}" for note in plan.notes),
        ]
        if self.expected_s is not None:
            lines.append(f"time         about {_duration(self.expected_s)}")
        lines.append("dry_run=true: no trial was run")
        return Group(table, Text(""), *(Text(line) for line in lines))

    def closing(self, outcome: Outcome) -> RenderableType:
        """Returns what is printed at the end."""
        from search.report.terminal import closing_table

        return Group(closing_table(outcome.results), Text(f"ended: {outcome.why}"))


def prepare(config: Config, say: Callable[[str], None]) -> Session:
    """Loads everything and returns the session.

    Raises:
        ParedownError: Something in the config or the files is wrong.
    """
    if config.data.get("tabular") is not None:
        from search.plan_tabular import plan_tabular

        return Session(config, plan_tabular(config))
    from search.plan_compression import expected_seconds, load, plan_compression

    loaded = load(config, say)
    plan = plan_compression(config, loaded, say)
    stages = tuple(str(name) for name in config.section("stage"))
    expected = expected_seconds(plan) if config.data["dry_run"] else None
    return Session(config, plan, stages, expected)


def _limit(column: str, kind: str, limit: float) -> str:
    return f"{column} {'<=' if kind == 'max' else '>='} {limit:g}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

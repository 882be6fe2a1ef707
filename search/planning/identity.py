"""The identity of a study: everything that changes what a trial measures, so that one table holds comparable numbers only.

Settings that decide which trials are run, where they run and where they are logged (`study.n_trials`,
`study.patience`, `sampler`, `executor`, `tracker`, ...) are not part of it and may change when a study is resumed.
So may paths: the content of the files is compared.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.base import Measurement
from evaluators.metric import Metric
from search.planning.config.schema import Config
from search.planning.loading import Loaded
from search.planning.tabular.problem import TabularProblem
from search.record.environment import environment
from search.record.results import Constraint, Objective
from spaces.digest import digest_of
from spaces.stages.artifact import Split

_SECTIONS = ("space", "stage", "criterion", "evaluator", "objective", "device", "seed")
_DESCRIPTIVE = ("description", "sources")  # keys of a device profile that no measurement depends on


def compression_identity(
    config: Config,
    loaded: Loaded,
    axes: Sequence[Objective | Constraint],
    baseline: Sequence[Measurement],
) -> dict[str, Any]:
    """Returns the settings and digests that must be equal for a study of a network to be resumed.

    Args:
        config: The study's config.
        loaded: Its model, task and devices.
        axes: Objectives and constraints: the unit and the source of their columns are compared.
        baseline: Measurements of the uncompressed model.

    Returns:
        Section name to a JSON-able description.
    """
    context = loaded.stage_context
    identity = {name: config.data.get(name) for name in _SECTIONS}
    identity["device"] = _profiles(config.data.get("device") or {})
    identity["task"] = {
        "_target_": config.data["task"]["_target_"],
        **({} if loaded.task.output is None else {"output": loaded.task.output}),
        **_splits(loaded),
    }
    identity["metric"] = _metric(loaded.task.metric)
    identity["model"] = {"_target_": config.data["model"]["_target_"], "digest": loaded.start.digest}
    identity["measurement"] = _measurements({axis.column for axis in axes}, baseline)
    if context.train is not None or context.teacher is not None:
        from spaces.models.torch.accelerator import device_of

        identity["accelerator"] = device_of(context.accelerator).type  # `auto` may find another one next time
    return identity


def tabular_identity(
    problem: TabularProblem, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> dict[str, Any]:
    """Returns what must be equal for a study on a table to be resumed: rows, task, objectives and constraints."""
    rows = [(sorted(row.knobs.items()), sorted(problem.values(row).items())) for row in problem.rows]
    return {
        "table": digest_of(rows),
        "task": problem.task,
        "objectives": {o.column: o.direction for o in objectives},
        "constraints": {c.name: f"{c.column} {c.kind} {c.bound!r}" for c in constraints},
    }


def _profiles(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in profile.items() if key not in _DESCRIPTIVE}
        if isinstance(profile, Mapping)
        else profile
        for name, profile in section.items()
    }


def _splits(loaded: Loaded) -> dict[str, str]:
    """Describes the splits that a trial uses; the train split only where a stage may train on it."""
    splits: dict[str, Split | None] = {
        "train": loaded.stage_context.train,
        "calibration": loaded.splits.calibration,
        "validation": loaded.splits.validation,
        "test": loaded.splits.test,
    }
    return {name: f"{len(s)} examples, digest {s.digest}" for name, s in splits.items() if s is not None}


def _metric(metric: Metric) -> dict[str, Any]:
    """Describes a metric by its class and its plain attributes, which decide its scores."""
    kind = type(metric)
    described = {"name": metric.name, "unit": metric.unit, "scale": metric.scale}
    plain = {k: v for k, v in getattr(metric, "__dict__", {}).items() if isinstance(v, str | int | float)}
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **described, **plain}


def _measurements(columns: set[str], baseline: Sequence[Measurement]) -> dict[str, str]:
    """Describes the columns by unit and source, and a measured cost also by the processor of this machine."""
    processor = environment()["cpu"]
    described = {}
    for m in baseline:
        where = f" on {processor}" if m.source == "measured" and m.device is not None else ""
        described[m.column] = " ".join(filter(None, (m.unit, f"{m.source}{where}")))
    return {column: described[column] for column in sorted(columns) if column in described}

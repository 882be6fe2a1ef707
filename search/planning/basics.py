"""Attributes of a `StudyPlan` that every kind of study takes from the config in the same way."""

from typing import Any

from search.planning.config.instantiate import instantiate
from search.planning.config.schema import Config
from search.record.environment import environment
from search.tracking.base import Tracker


def basics(config: Config) -> dict[str, Any]:
    """Returns keyword arguments of `StudyPlan` that do not depend on the kind of study."""
    from search.report.report import write_report

    study = config.study
    return {
        "name": study.name,
        "folder": study.folder,
        "storage": study.storage,
        "time_limit_s": study.time_limit_s,
        "trial_time_limit_s": study.trial_time_limit_s,
        "patience": study.patience,
        "sampler_name": str(config.choices.get("sampler", "sampler")),
        "tracker": instantiate(config.section("tracker"), "tracker", config.trusted, [Tracker]),
        "config": config.data,
        "command": config.command,
        "seed": config.seed,
        "environment": environment(),
        "write_report": write_report if study.report else None,
    }

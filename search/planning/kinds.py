"""The kind of object that each config group makes: checked for the whole config before anything is called."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import optuna

from evaluators.base import Evaluator
from evaluators.task.tasks.task import Task
from search.allocators.base import Allocator
from search.executors.base import Executor
from search.knowledge.base import KnowledgeSource
from search.planning.config.instantiate import check_section
from search.planning.config.schema import Config
from search.tracking.base import Tracker
from spaces.errors import ConfigError
from spaces.models.base import ModelSource
from spaces.pruning.criteria.criterion import Criterion
from spaces.stages.stage import Stage

KINDS: Mapping[str, type] = {
    "task": Task, "model": ModelSource, "stage": Stage, "criterion": Criterion, "evaluator": Evaluator,
    "sampler": optuna.samplers.BaseSampler, "allocator": Allocator, "pruner": optuna.pruners.BasePruner, "knowledge": KnowledgeSource,
    "executor": Executor, "tracker": Tracker,
}  # fmt: skip


SEVERAL = ("stage", "criterion", "evaluator")
"""Groups that hold several objects by name."""


def check_kinds(config: Config) -> None:
    """Checks that every group names classes of its kind, with keys that they take, calling none of them.

    Raises:
        ConfigError: A group names something else, or what does not exist, or has an unknown key.
    """
    for group, kind in KINDS.items():
        _check_one(group, config)
        for where, section in _sections(group, config.data.get(group)):
            check_section(section, where, config.trusted, [kind])


def _check_one(group: str, config: Config) -> None:
    """Raises ConfigError if a group that holds one object was given a list of names, whose files Hydra would merge."""
    listed = re.search(rf"(?<![\w./]){group}=\[([^\]]*,[^\]]*)\]", config.command)
    if group not in SEVERAL and listed:
        raise ConfigError(
            f"{group}=[{listed[1]}]: one {group} is chosen, not several: {group}={listed[1].split(',')[0]}"
        )


def _sections(group: str, section: Any) -> Iterator[tuple[str, Any]]:
    """Yields a group's sections with `_target_`: itself, or those of its members by name."""
    if isinstance(section, Mapping) and "_target_" in section:
        yield group, section
    elif isinstance(section, Mapping):
        for name, member in section.items():
            if isinstance(member, Mapping) and "_target_" in member:
                yield f"{group}.{name}", member

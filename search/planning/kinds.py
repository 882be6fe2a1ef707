"""The kind of object that each config group makes: checked for the whole config before anything is called."""

from collections.abc import Iterator, Mapping
from typing import Any

import optuna

from evaluators.base import Evaluator
from evaluators.task.tasks.task import Task
from search.allocators.base import Allocator
from search.executors.base import Executor
from search.knowledge.base import KnowledgeSource
from search.planning.config.instantiate import factory_of
from search.planning.config.schema import Config
from search.tracking.base import Tracker
from spaces.models.base import ModelSource
from spaces.pruning.criteria.criterion import Criterion
from spaces.stages.stage import Stage

KINDS: Mapping[str, type] = {
    "task": Task, "model": ModelSource, "stage": Stage, "criterion": Criterion, "evaluator": Evaluator,
    "sampler": optuna.samplers.BaseSampler, "allocator": Allocator, "pruner": optuna.pruners.BasePruner, "knowledge": KnowledgeSource,
    "executor": Executor, "tracker": Tracker,
}  # fmt: skip


def check_kinds(config: Config) -> None:
    """Checks that every group names classes of its kind, calling none of them.

    Raises:
        ConfigError: A group names something else, or what does not exist.
    """
    for group, kind in KINDS.items():
        for where, section in _sections(group, config.data.get(group)):
            factory_of(section, where, config.trusted, [kind])


def _sections(group: str, section: Any) -> Iterator[tuple[str, Any]]:
    """Yields a group's sections with `_target_`: itself, or those of its members by name."""
    if isinstance(section, Mapping) and "_target_" in section:
        yield group, section
    elif isinstance(section, Mapping):
        for name, member in section.items():
            if isinstance(member, Mapping) and "_target_" in member:
                yield f"{group}.{name}", member

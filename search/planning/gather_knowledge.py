"""Reads earlier studies for the sampler to learn from, in bounded time; a failure never stops the new study."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna

from evaluators.base import Measurement
from search.knowledge.base import MOST_TRIALS, Deadline, KnowledgeSource, Own, PastStudy, Refused
from search.knowledge.learn import Learned, Learner
from search.knowledge.notes import learned_note, refused_note, unread_note
from search.knowledge.read import read_within
from search.planning.config.instantiate import instantiate
from search.planning.config.schema import Config
from search.planning.own_knowledge import metadata_of
from search.record.metadata import StudyMetadata
from search.record.results import Objective
from search.samplers.candidates.context import Bindable, KnowledgeRow
from spaces.space import Space

if TYPE_CHECKING:
    from search.planning.loading import Loaded


@dataclass(frozen=True)
class Knowledge:
    """Trials of earlier studies that the sampler may learn from.

    Attributes:
        rows: Trials of earlier studies, as candidates of this study's space.
        descriptors: Numeric descriptors of this study's model and task, by name.
        metadata: This study's own metadata, which config.yaml keeps under `knowledge` for later studies.
        summary: A sentence that names the earlier studies that were used; empty if none was.
        refused: A sentence for each group of studies that were not used, with the reason.
    """

    rows: tuple[KnowledgeRow, ...] = ()
    descriptors: Mapping[str, float] = field(default_factory=dict)
    metadata: StudyMetadata = field(default_factory=StudyMetadata)
    summary: str = ""
    refused: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Summary and refusals, for the report; empty if there were no earlier studies."""
        return (*([self.summary] if self.summary else []), *self.refused)

    @property
    def record(self) -> dict[str, Any]:
        """The entry of config.yaml that later studies read."""
        return {"knowledge": self.metadata.to_json()}


def knowledge_of(
    config: Config, loaded: "Loaded", objectives: Sequence[Objective], baseline: Sequence[Measurement]
) -> Knowledge:
    """Returns the trials of earlier studies that the study of `config` may learn from.

    Args:
        config: The config; its `knowledge` section names the source.
        loaded: Model, task and space.
        objectives: The study's objectives.
        baseline: The uncompressed model's measurements.

    Raises:
        ConfigError: A key of the `knowledge` section is wrong. No other error is raised.
    """
    metadata = metadata_of(config, loaded, objectives, baseline)
    source = source_of(config)
    if not uses_knowledge(config):
        return Knowledge(descriptors=metadata.descriptors, metadata=metadata)
    return gather(
        source, Own(config.study.name, config.study.folder, config.sweep), metadata, loaded.space, objectives
    )


def source_of(config: Config) -> KnowledgeSource | None:
    """Returns the source that the config names; None if it names none.

    Raises:
        ConfigError: A key of the section is wrong.
    """
    section = config.data.get("knowledge")
    if section is None:
        return None
    source: KnowledgeSource = instantiate(section, "knowledge", config.trusted, [KnowledgeSource])
    return source


def uses_knowledge(config: Config) -> bool:
    """Whether the config's sampler learns from other studies.

    A sampler declares that by an attribute `uses_knowledge`, or by an argument `transfer` that is true.
    """
    section = config.section("sampler")
    kinds = [optuna.samplers.BaseSampler]
    sampler = instantiate(section, "sampler", config.trusted, kinds, seed=config.seed)
    parameter = inspect.signature(type(sampler)).parameters.get("transfer")
    transfer = parameter is not None and section.get("transfer", parameter.default)
    return isinstance(sampler, Bindable) and bool(getattr(sampler, "uses_knowledge", transfer))


def gather(
    source: KnowledgeSource | None,
    own: Own,
    metadata: StudyMetadata,
    space: Space,
    objectives: Sequence[Objective],
) -> Knowledge:
    """Reads a source and keeps the trials that are candidates of the space, in the study's units.

    Args:
        source: The source; None if there is none.
        own: Name and folder of the present study.
        metadata: Its metadata.
        space: Its space.
        objectives: Its objectives.
    """
    without_studies = Knowledge(descriptors=metadata.descriptors, metadata=metadata)
    if source is None:
        return without_studies
    learner = Learner(metadata, space, objectives, MOST_TRIALS)
    deadline = Deadline(source.seconds)
    reading = read_within(source.studies(own, deadline), deadline)
    results = [_learned(learner, study) for study in reading.studies]
    learned = [each for each in results if isinstance(each, Learned)]
    refused = [each for each in results if isinstance(each, Refused)]
    unread = () if reading.complete else (unread_note(source.seconds, len(reading.studies)),)
    return Knowledge(
        tuple(row for each in learned for row in each.rows),
        metadata.descriptors,
        metadata,
        learned_note(learned),
        (*refused_note(refused), *unread),
    )


def _learned(learner: Learner, study: PastStudy | Refused) -> Learned | Refused:
    if isinstance(study, Refused):
        return study
    try:
        return learner.learn(study)
    except Exception as error:  # a damaged record of another study must not stop this one
        return Refused(study.name, f"cannot be used: {type(error).__name__}: {error}".partition("\n")[0])

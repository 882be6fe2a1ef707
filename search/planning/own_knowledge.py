"""The metadata that a study records about itself at its start, for later studies to learn from it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.base import Measurement
from search.knowledge.descriptors import descriptors_of
from search.planning.config.schema import Config
from search.record.environment import environment
from search.record.metadata import StudyMetadata, baseline_metadata
from search.record.results import Objective
from spaces.digest import digest_of
from spaces.stages.stage import Stage

if TYPE_CHECKING:
    from search.planning.loading import Loaded


def metadata_of(
    config: Config, loaded: "Loaded", objectives: Sequence[Objective], baseline: Sequence[Measurement]
) -> StudyMetadata:
    """Returns the metadata of the study that `config` declares."""
    splits = loaded.splits
    return StudyMetadata(
        model=_name(config, "model"),
        model_digest=loaded.start.digest,
        task=_name(config, "task"),
        task_digest=digest_of(splits.calibration.digest, splits.validation.digest),
        **baseline_metadata(baseline),
        directions={o.column: o.direction for o in objectives},
        defaults=stage_defaults(loaded.pipeline.stages),
        descriptors=descriptors_of(loaded.dense, loaded.task, splits),
        machine=environment().get("cpu", ""),
    )


def stage_defaults(stages: Iterable[Stage]) -> dict[str, Any]:
    """Returns the default value of every knob, by `stage.knob`."""
    return {f"{stage.name}.{knob.name}": knob.default for stage in stages for knob in stage.knobs}


def _name(config: Config, group: str) -> str:
    """Returns the name of a group's chosen file; for model=onnx and model=torch the checkpoint's stem."""
    section = config.data.get(group)
    chosen = config.choices.get(group)
    path = section.get("checkpoint") if isinstance(section, Mapping) else None
    if group == "model" and path and chosen in ("onnx", "torch", None):
        return str(path).replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or str(path)
    return str(chosen) if chosen else ""

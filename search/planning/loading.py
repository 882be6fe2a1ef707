"""From a config to what its study is about: model, task, devices and space, checked against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluators.devices.device import Device
from evaluators.task.data_fit import check_fit
from evaluators.task.tasks.task import Splits, Task
from search.planning.builders import builders_digest
from search.planning.config.device_files import devices_of
from search.planning.config.instantiate import instantiate
from search.planning.config.schema import Config
from search.planning.modelled_latency import ModelledLatency
from spaces.errors import ConfigError, StageError
from spaces.models.base import LoadContext, ModelSource
from spaces.models.layers import layers
from spaces.pruning.criteria.criterion import Criterion
from spaces.space import Space
from spaces.space_config import read_space
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import Stage, StageContext

Say = Callable[[str], None]
CALIBRATION_KNOB = "calibration_images"
ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Loaded:
    """A config's model, task and space, before anything is measured.

    Attributes:
        task: The task.
        splits: Its data.
        start: What the stages with knobs begin with: the torch network, if the first of them takes one, or `dense`.
        dense: The float ONNX model.
        pipeline: The stages from the first one with knobs on.
        space: What may vary.
        stage_context: What stages may use.
        devices: By name.
        notes: Remarks for people.
    """

    task: Task
    splits: Splits
    start: Artifact
    dense: Artifact
    pipeline: Pipeline
    space: Space
    stage_context: StageContext
    devices: dict[str, Device]
    notes: tuple[str, ...]


def load(config: Config, say: Say) -> Loaded:
    """Loads what a study needs and checks that it fits together.

    Raises:
        ConfigError: A value of the config is wrong.
        InputError: A file is missing, damaged or does not fit.
    """
    devices = devices_of(config)
    stages = _stages(config)
    read_space(config.section("space"), stages)  # a typo is told before a network is loaded
    say("reading the task's data")
    task: Task = made(Task, config.section("task"), "task", config)
    splits = task.splits()
    say("loading the network")
    source: ModelSource = made(ModelSource, config.section("model"), "model", config)
    model = source.load(LoadContext(splits.train, config.cache_dir, config.seed))
    # what no stage uses is not shipped to workers
    learns = any(stage.produces == "torch" for stage in stages)
    context = StageContext(
        splits.calibration,
        _cache(config, stages),
        config.seed,
        train=splits.train if learns and len(splits.train) else None,
        teacher=model if learns and model.kind == "torch" else None,
        accelerator=_accelerator(config),
        latency_ms=ModelledLatency(devices),
    )
    names = [key for key in config.section("space") if key != "constraints"]
    prefix, pipeline = Pipeline(stages).split(names)
    say("exporting it")
    start = prefix.run(model, {}, context, cache_last=True)
    dense = _dense(start, pipeline, context)
    check_fit(dense, task, splits)
    space = read_space(
        config.section("space"), stages, list(dict.fromkeys(layer.name for layer in layers(dense.proto())))
    )
    context = replace(context, calibration_sizes=_calibration_sizes(pipeline, space))
    notes = _checked_knobs(pipeline, start, dense, space, context)
    return Loaded(task, splits, start, dense, pipeline, space, context, devices, notes)


def _stages(config: Config) -> list[Stage]:
    """Returns the stages; those that cut networks get the criteria of the config's section `criterion`."""
    own: Mapping[str, Any] = config.data.get("criterion") or {}
    criteria = {name: made(Criterion, section, f"criterion.{name}", config) for name, section in own.items()}
    sections = config.section("stage").items()
    return [made(Stage, section, f"stage.{name}", config, criteria=criteria) for name, section in sections]


def _dense(start: Artifact, pipeline: Pipeline, context: StageContext) -> Artifact:
    """Returns the float ONNX model: what the first stage with knobs gets, or that torch network exported as it is."""
    if pipeline.stages and start.kind not in pipeline.stages[0].consumes:
        first = pipeline.stages[0]
        hint = ": it needs the network itself (model=torch or one of the zoo)" if start.kind == "onnx" else ""
        raise ConfigError(
            f"stage {first.name!r} takes {' or '.join(first.consumes)}, but the model is {start.kind}{hint}"
        )
    if start.kind == "onnx":
        return start
    exporting = [s for s in pipeline.stages if "torch" in s.consumes and s.produces == "onnx"]
    if not exporting:
        raise ConfigError("stage: nothing turns the torch model into ONNX; add `export`")
    return Pipeline(exporting[:1]).run(start, {}, context)


def _accelerator(config: Config) -> str:
    wanted = str(config.data["accelerator"])
    if wanted not in ACCELERATORS:
        raise ConfigError(f"accelerator must be one of {', '.join(ACCELERATORS)}, not {wanted!r}")
    return wanted


def _cache(config: Config, stages: Sequence[Stage]) -> Cache:
    """What stages yield is shared by all studies, as long as what builds it stays the same."""
    if config.data["dry_run"]:
        return Cache(None)
    return Cache(
        config.cache_dir / "stages",
        cache_bytes=config.cache_bytes,
        prefix=f"{builders_digest(stages)}-",
    )


def _calibration_sizes(pipeline: Pipeline, space: Space) -> tuple[int, ...]:
    """Returns the numbers of calibration examples that candidates will ask for."""
    sizes = {n for s in pipeline.stages for n in space.domains(s.name).get(CALIBRATION_KNOB, ())}
    return tuple(sorted(n for n in sizes if isinstance(n, int)))


def made(kind: type[Any], section: Any, where: str, config: Config, **extra: Any) -> Any:
    """Returns what a section's `_target_` makes.

    Args:
        kind: What it has to be.
        section: The section.
        where: Its config path, for messages.
        config: The whole config.
        **extra: Arguments for those targets that take them.

    Raises:
        ConfigError: It is no `kind`, or does not take the section's values.
    """
    found = instantiate(
        section,
        where,
        config.trusted,
        seed=config.seed,
        cache_dir=config.cache_dir,
        trusted_modules=list(config.trusted),
        **extra,
    )
    if not isinstance(found, kind):
        raise ConfigError(f"{where}._target_: {section['_target_']!r} is no {kind.__name__}")
    return found


def _checked_knobs(
    pipeline: Pipeline, start: Artifact, dense: Artifact, space: Space, context: StageContext
) -> tuple[str, ...]:
    """Checks the space against the network, and returns which knobs cannot change its file.

    What a later stage will get is not known before a candidate is built: the uncompressed network stands for it, as torch
    network or as ONNX model, since its layers have the same names.
    """
    notes: list[str] = []
    for stage in pipeline.stages:
        domains = space.domains(stage.name)
        given = start if start.kind in stage.consumes else dense
        try:
            stage.check(given, space.extremes(stage.name), context)
        except StageError as error:
            raise ConfigError(f"space.{stage.name}: {error}") from error
        for name, reason in stage.empty_knobs(given, domains, context).items():
            notes.append(f"knob {stage.name}.{name} cannot change this network's file: {reason}")
    return tuple(notes)

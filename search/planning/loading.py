"""Loads the model, task, devices and space of a config, and checks them against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluators.base import Evaluator, Outline
from evaluators.devices.device import Device
from evaluators.task.data.leaks import copy_notes
from evaluators.task.data_fit import check_fit
from evaluators.task.tasks.task import Splits, Task
from search.planning.builders import builders_digest
from search.planning.config.device_files import devices_of
from search.planning.config.instantiate import instantiate
from search.planning.config.schema import Config
from search.planning.fitting import Fitting
from search.planning.modelled_latency import ModelledLatency
from search.planning.stage_order import check_stages
from search.record.objectives import Measured, check_names
from spaces.errors import ConfigError
from spaces.models.base import LoadContext, ModelSource
from spaces.models.layers import layer_names
from spaces.pruning.criteria.criterion import Criterion
from spaces.quantization.sensitivity.output_losses import GRADIENT_LOSSES
from spaces.space import Space
from spaces.space_config import read_space
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Cache
from spaces.stages.pipeline import Pipeline
from spaces.stages.stage import Stage, StageContext

Say = Callable[[str], None]
CALIBRATION_KNOB = "calibration_images"
LEFT_FLOAT = "Left float"
ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Loaded:
    """A config's model, task and space, before anything is measured.

    Attributes:
        task: The task.
        splits: Its data.
        start: Input of the first stage with knobs: the torch network, if that stage takes one, or `dense`.
        dense: The float ONNX model.
        pipeline: The stages from the first one with knobs on.
        space: The search space.
        stage_context: Data, cache and settings that every stage gets.
        devices: Device profiles by name.
        evaluators: What measures candidates, in order.
        notes: Remarks for the report.
    """

    task: Task
    splits: Splits
    start: Artifact
    dense: Artifact
    pipeline: Pipeline
    space: Space
    stage_context: StageContext
    devices: dict[str, Device]
    evaluators: tuple[Evaluator, ...]
    notes: tuple[str, ...]


def _teacher(config: Config, model: Artifact, trains: bool) -> Artifact | None:
    """Returns the torch network for stages that train, and for sensitivities by gradients; None if neither needs it."""
    sensitivity = config.section("allocator").get("sensitivity")
    by_gradients = sensitivity in GRADIENT_LOSSES
    if by_gradients and model.kind != "torch":
        raise ConfigError(
            f"allocator.sensitivity={sensitivity} needs gradients, which an ONNX file does not give; use kl, sqnr, mse or ssim"
        )
    return model if (trains or by_gradients) and model.kind == "torch" else None


def load(config: Config, say: Say) -> Loaded:
    """Loads model, task, devices and space, and checks that they fit together.

    Args:
        config: The config.
        say: Reports progress, one line of text a step.

    Raises:
        ConfigError: A value of the config is wrong.
        InputError: A file is missing, damaged, or does not fit the task or the model.
    """
    devices = devices_of(config)
    stages = _stages(config)
    check_stages(config, stages)
    read_space(config.section("space"), stages)  # reports a typo before the network is loaded
    evaluators = _evaluators(config)
    say("reading the task's data")
    task: Task = made(Task, config.section("task"), "task", config)
    _check_objective(config, task, devices, evaluators)
    splits = task.splits()
    say("loading the network")
    source: ModelSource = made(ModelSource, config.section("model"), "model", config)
    model = source.load(
        LoadContext(
            splits.train,
            config.cache_dir,
            config.seed,
            not config.data["dry_run"],
            task.loss,
            _accelerator(config),
        )
    )
    # data that no stage uses is not sent to the workers
    trains = any(stage.produces == "torch" for stage in stages)
    context = StageContext(
        splits.calibration,
        _cache(config, stages),
        config.seed,
        train=splits.train if trains and len(splits.train) else None,
        teacher=_teacher(config, model, trains),
        accelerator=_accelerator(config),
        latency_ms=ModelledLatency(devices),
        draft=config.data["dry_run"]
        and not config.section("sampler").get("allocator"),  # whose budgets need costs to the byte
        loss=task.loss,
    )
    names = [key for key in config.section("space") if key != "constraints"]
    prefix, pipeline = Pipeline(stages).split(names)
    say("exporting the network")
    start = prefix.run(model, {}, context, cache_last=True)
    dense = _dense(start, pipeline, context)
    fit = check_fit(dense, task, splits)
    start, dense = start.judged_by(fit.output), dense.judged_by(fit.output)
    splits = task.labelled_by(dense, splits, trains=trains)
    context = replace(
        context, calibration=splits.calibration, loss=task.loss, train=context.train and splits.train
    )
    space = read_space(config.section("space"), stages, layer_names(dense.proto()))
    fitting = Fitting(pipeline, start, dense, context)
    space, left_out = fitting.suited(space)
    context = replace(context, calibration_sizes=_calibration_sizes(pipeline, space))
    checked = _final(dense, replace(fitting, context=context).checked(space))
    notes = (*_model_note(model), *task.notes(), *copy_notes(vars(splits)), *fit.notes, *left_out, *checked)
    return Loaded(task, splits, start, dense, pipeline, space, context, devices, evaluators, notes)


def _evaluators(config: Config) -> tuple[Evaluator, ...]:
    sections = config.section("evaluator").items()
    return tuple(made(Evaluator, section, f"evaluator.{name}", config) for name, section in sections)


def _check_objective(
    config: Config, task: Task, devices: Mapping[str, Device], evaluators: Sequence[Evaluator]
) -> None:
    """Raises ConfigError for a name that no measurement has, if every evaluator can tell its columns beforehand."""
    metric = getattr(task, "metric", None)  # which a task may make when it reads its data
    if metric is None:
        return
    told = [e.columns(Outline((metric, *task.others), devices, task.agreement)) for e in evaluators]
    known = [columns for columns in told if columns is not None]
    if len(known) == len(told):
        check_names(
            config.section("objective"), Measured(metric.name, list(devices), frozenset().union(*known))
        )


def _model_note(model: Artifact) -> tuple[str, ...]:
    """Returns the remark of the model's source, if it made one."""
    return (str(model.notes["model"]),) if "model" in model.notes else ()


def _final(dense: Artifact, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the remarks on a network; for a draft of it without those on single nodes, which may be others in the end."""
    if not dense.notes.get("export", {}).get("draft"):
        return notes
    kept = (note for note in notes if not note.startswith(LEFT_FLOAT))
    return (*kept, "which nodes stay float is known, and said, once the study has exported the network")


def _stages(config: Config) -> list[Stage]:
    """Returns the stages; those that cut networks get the criteria of the config's section `criterion`."""
    own: Mapping[str, Any] = config.data.get("criterion") or {}
    criteria = {name: made(Criterion, section, f"criterion.{name}", config) for name, section in own.items()}
    sections = config.section("stage").items()
    return [made(Stage, section, f"stage.{name}", config, criteria=criteria) for name, section in sections]


def _dense(start: Artifact, pipeline: Pipeline, context: StageContext) -> Artifact:
    """Returns the float ONNX model: the input of the first stage with knobs, exported if need be."""
    if pipeline.stages and start.kind not in pipeline.stages[0].consumes:
        first = pipeline.stages[0]
        hint = (
            ": this stage needs a torch network (model=torch or a model of the zoo)"
            if start.kind == "onnx"
            else ""
        )
        raise ConfigError(
            f"stage {first.name!r} takes {' or '.join(first.consumes)}, but the model is {start.kind}{hint}"
        )
    if start.kind == "onnx":
        return start
    exports = [s for s in pipeline.stages if "torch" in s.consumes and s.produces == "onnx"]
    if not exports:
        raise ConfigError("stage: nothing turns the torch model into ONNX; add `export`")
    return Pipeline(exports[:1]).run(start, {}, context)


def _accelerator(config: Config) -> str:
    wanted = str(config.data["accelerator"])
    if wanted not in ACCELERATORS:
        raise ConfigError(f"accelerator must be one of {', '.join(ACCELERATORS)}, not {wanted!r}")
    return wanted


def _cache(config: Config, stages: Sequence[Stage]) -> Cache:
    """Returns the cache of the stages' output, shared by all studies that run the same code."""
    return Cache(
        config.cache_dir / "stages",
        cache_bytes=config.cache_bytes,
        prefix=f"{builders_digest(stages)}-",
        writes=not config.data["dry_run"],
    )


def _calibration_sizes(pipeline: Pipeline, space: Space) -> tuple[int, ...]:
    """Returns the numbers of calibration examples that the space contains, ascending."""
    sizes = {n for s in pipeline.stages for n in space.domains(s.name).get(CALIBRATION_KNOB, ())}
    return tuple(sorted(n for n in sizes if isinstance(n, int)))


def made(kind: type[Any], section: Any, where: str, config: Config, **extra: Any) -> Any:
    """Returns the object that a section's `_target_` makes.

    Args:
        kind: The class that the target must derive from, checked before it is called.
        section: The section.
        where: Its config path, for messages.
        config: The config, for seed, cache folder and trusted modules.
        **extra: Arguments for those targets that have such parameters.

    Raises:
        ConfigError: The target makes no `kind`, or does not take the section's values.
    """
    return instantiate(
        section,
        where,
        config.trusted,
        [kind],
        seed=config.seed,
        cache_dir=config.cache_dir,
        trusted_modules=list(config.trusted),
        **extra,
    )

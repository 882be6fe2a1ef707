"""One training of the recover stage: student, teacher, loss and recipe from the values of knobs."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from spaces.recovery.lora import merged, with_low_rank
from spaces.recovery.losses.block_weights import BLOCK_WEIGHTS, EXAMPLES
from spaces.recovery.losses.channel_wise import ChannelWise
from spaces.recovery.losses.cross_entropy import CrossEntropy
from spaces.recovery.losses.hooks import matching_modules
from spaces.recovery.losses.objective import Objective, Teacher
from spaces.recovery.requirements import (
    NEEDS_TEACHER,
    check_needs,
    teacher,
    torch_module,
    train_split,
)
from spaces.recovery.training.accelerator import device_of
from spaces.recovery.training.curve import Curve
from spaces.recovery.training.determinism import fixed_threads, seed_of
from spaces.recovery.training.examples import first_inputs
from spaces.recovery.training.recipe import Recipe
from spaces.recovery.training.training import train
from spaces.stages.artifact import Artifact
from spaces.stages.stage import StageContext


def recover(
    artifact: Artifact, values: Mapping[str, Any], context: StageContext, threads: int, key: str
) -> tuple[nn.Module, Curve]:
    """Returns the trained network, of the artifact's structure, and the training curve.

    Args:
        artifact: The network; left as it is.
        values: Canonical values of the recover stage; `epochs` is more than 0.
        context: Split, teacher, seed, accelerator, cache, watch.
        threads: Number of torch's threads.
        key: Digest of everything that the result depends on.

    Raises:
        StageError: Examples, labels, a teacher or a suitable layer are missing, or the training diverges.
    """
    check_needs(artifact, {name: (value,) for name, value in values.items()}, context)
    module, rank = torch_module(artifact), values["lora_rank"]
    student = (
        with_low_rank(module, rank, seed_of("low rank", context.seed)) if rank else copy.deepcopy(module)
    )
    with fixed_threads(threads):
        objective = _objective(module, values, context)
        factors = _factors(module, values, context)
    with objective.watching(student):
        curve = train(
            student,
            train_split(context),
            _recipe(values, threads),
            loss=objective,
            context=context,
            stage="recover",
            key=key,
            factors=factors,
        )
    return (merged(student, module) if rank else student), curve


def _recipe(values: Mapping[str, Any], threads: int) -> Recipe:
    names = ("epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "augmentation")
    return Recipe(**{name: values[name] for name in names}, threads=threads)


def _objective(module: nn.Module, values: Mapping[str, Any], context: StageContext) -> Objective:
    channel_wise = None
    if values["cwd_weight"] > 0 and context.teacher is not None:
        channel_wise = _channel_wise(module, values, context)
    origin = None
    if values["distillation_weight"] > 0 or channel_wise is not None:
        names = channel_wise.names if channel_wise is not None else ()
        origin = Teacher(teacher(context, "distillation_weight"), device_of(context.accelerator), names)
    return Objective(
        CrossEntropy(values["label_smoothing"]),
        origin,
        values["distillation_weight"],
        values["temperature"],
        channel_wise,
        values["cwd_weight"],
    )


def _channel_wise(module: nn.Module, values: Mapping[str, Any], context: StageContext) -> ChannelWise | None:
    inputs = first_inputs(train_split(context), 2)
    channels = matching_modules(module, teacher(context, "cwd_weight"), inputs)
    if not channels:
        return None
    return ChannelWise(channels, values["cwd_temperature"], seed_of("projections", context.seed))


def _factors(module: nn.Module, values: Mapping[str, Any], context: StageContext) -> dict[str, float] | None:
    kind = values["block_weights"]
    if kind == "none":
        return None
    inputs = first_inputs(train_split(context), EXAMPLES)
    origin = teacher(context, "block_weights") if NEEDS_TEACHER["block_weights"](kind) else module
    return BLOCK_WEIGHTS[kind](module, origin, inputs, seed_of("block weights", context.seed))

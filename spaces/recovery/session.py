"""One training of the recover stage: student, teacher, loss and recipe from the values of knobs."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from spaces.models.torch.accelerator import device_of
from spaces.recovery.adapters import merged_adapters, packed, parts_of_split, unpacked
from spaces.recovery.biases import check_factors, only_biases, tuned
from spaces.recovery.invariance import EXAMPLES as N_TRIED
from spaces.recovery.invariance import suitable_augmentation
from spaces.recovery.knobs import AUTO
from spaces.recovery.lora import merged, with_low_rank
from spaces.recovery.losses.balance import Balance
from spaces.recovery.losses.block_weights import BLOCK_WEIGHTS, EXAMPLES
from spaces.recovery.losses.channel_wise import ChannelWise
from spaces.recovery.losses.hooks import matching_modules
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.losses.objective import Objective, Teacher
from spaces.recovery.requirements import (
    NEEDS_TEACHER,
    check_needs,
    teacher,
    torch_module,
    train_split,
)
from spaces.recovery.ternary_experts import ternarized, with_ternary_experts
from spaces.recovery.training.determinism import fixed_threads, seed_of
from spaces.recovery.training.examples import first_inputs
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.stored_activations import EXACT, StoredBytes
from spaces.recovery.training.training import train
from spaces.stages.artifact import Artifact, Split
from spaces.stages.stage import StageContext
from spaces.task_losses import LOSSES, TaskLoss, task_loss


def recover(
    artifact: Artifact, values: Mapping[str, Any], context: StageContext, threads: int, key: str, stage: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the trained network, of the artifact's structure, and notes on the training, JSON-able.

    Args:
        artifact: The network; left as it is.
        values: Canonical values of every knob of the recover stage; `epochs` is more than 0.
        context: Split, teacher, seed, accelerator, cache, watch.
        threads: Number of torch's threads.
        key: Digest of everything that the result depends on.
        stage: Name of the stage, for the watch and for messages.

    Raises:
        StageError: Examples, labels, a teacher or a suitable layer are missing, or the training diverges.
    """
    check_needs(artifact, {name: (value,) for name, value in values.items()}, context)
    module = torch_module(artifact)
    if values["adapters"] > 1:
        return _with_adapters(artifact, values, context, threads, key, stage)
    student = _student(module, values, context)
    notes = _trained(student, train_split(context), artifact, values, context, threads, key, stage)
    return _finished(student, module, values), notes


def _with_adapters(
    artifact: Artifact, values: Mapping[str, Any], context: StageContext, threads: int, key: str, stage: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the network with the merged adapters, of which those of weight 0 are not trained, and notes on all of them."""
    module, n = torch_module(artifact), values["adapters"]
    weights = values["merge_weights"] or (1 / n,) * n
    unwatched, found, notes = replace(context, watch=None), [], []
    for i, (weight, part) in enumerate(zip(weights, parts_of_split(train_split(context), n), strict=True)):
        if not weight:
            continue

        def train_one(part: Split = part, name: str = f"{key}-{i}") -> bytes:
            student = _student(module, values, context)
            return packed(student, _trained(student, part, artifact, values, unwatched, threads, name, stage))

        updates, of_one = unpacked(context.cache.blob(f"adapter-{key}-{i}", train_one))
        found.append((weight, updates))
        notes.append({"adapter": i, "weight": weight, **of_one})
    sums = {name: sum(each[name] for each in notes) for name in ("examples", "seconds")}
    return merged_adapters(module, found), {**notes[0], **sums, "adapters": notes}


def _trained(
    student: nn.Module,
    split: Split,
    artifact: Artifact,
    values: Mapping[str, Any],
    context: StageContext,
    threads: int,
    key: str,
    stage: str,
) -> dict[str, Any]:
    """Trains a student in place; returns notes on the training, JSON-able."""
    module = torch_module(artifact)
    with fixed_threads(threads):
        objective = _objective(artifact, values, context)
        factors = _factors(module, values, context)
        recipe = _recipe(values, context, threads)
    check_factors(student, factors)
    with objective.watching(student):
        curve = train(
            student,
            split,
            recipe,
            loss=objective,
            context=context,
            stage=stage,
            key=key,
            factors=factors,
            output=artifact.input.output,
        )
    notes = {"learning_rate": curve.peak_rate, "augmentation": recipe.augmentation, "curve": curve.as_json()}
    notes |= {"examples": recipe.epochs * len(split), "seconds": sum(curve.seconds)}
    notes |= _memory(curve.activations)
    return {"epochs": recipe.epochs, **notes}


def _memory(stored: StoredBytes | None) -> dict[str, int]:
    """Returns the bytes of activations that the first step stored, and those that it would have without rounding."""
    return (
        {} if stored is None else {"activation_bytes": stored.stored, "activation_bytes_exact": stored.exact}
    )


def _student(module: nn.Module, values: Mapping[str, Any], context: StageContext) -> nn.Module:
    """Returns the copy of a network that is trained."""
    if values["lora_rank"]:
        return with_low_rank(module, values["lora_rank"], seed_of("low rank", context.seed))
    student = with_ternary_experts(module) if values["experts"] == "ternary" else copy.deepcopy(module)
    return only_biases(student) if values["tune"] == "bias" else student


def _finished(student: nn.Module, module: nn.Module, values: Mapping[str, Any]) -> nn.Module:
    """Returns the trained copy in the structure of the network."""
    if values["lora_rank"]:
        return merged(student, module)
    return ternarized(student, module) if values["experts"] == "ternary" else tuned(student, module)


def _recipe(values: Mapping[str, Any], context: StageContext, threads: int) -> Recipe:
    names = (
        "epochs",
        "batch_size",
        "optimizer",
        "weight_decay",
        "schedule",
        "average_decay",
        "stored_activation_bits",
    )
    rate, augmentation = values["learning_rate"], values["augmentation"]
    return Recipe(
        learning_rate=None if rate == AUTO else rate,
        augmentation=_suitable_augmentation(context) if augmentation == AUTO else augmentation,
        threads=threads,
        cuda_graphs=values.get("cuda_graphs", False) and values["stored_activation_bits"] == EXACT,
        **{name: values[name] for name in names},
    )


def _suitable_augmentation(context: StageContext) -> str:
    """Returns the augmentation that the uncompressed network's answers survive; none without that network or without classes."""
    if context.teacher is None or not context.teacher.input.float_shape or context.teacher.input.output.whole:
        return "none"
    inputs = first_inputs(train_split(context), N_TRIED)
    network = teacher(context, "augmentation")
    seed = seed_of("augmentation", context.seed)
    return suitable_augmentation(network, inputs, seed, context.teacher.input.output)


def _objective(artifact: Artifact, values: Mapping[str, Any], context: StageContext) -> Objective:
    channel_wise = None
    if values["cwd_weight"] > 0 and context.teacher is not None:
        channel_wise = _channel_wise(torch_module(artifact), values, context)
    origin = None
    if values["distillation_weight"] > 0 or channel_wise is not None:
        names = channel_wise.names if channel_wise is not None else ()
        origin = Teacher(
            teacher(context, "distillation_weight"),
            device_of(context.accelerator),
            names,
            artifact.input.output,
        )
    return Objective(
        LabelLoss(values["label_smoothing"], _loss(context, artifact)),
        origin,
        values["distillation_weight"],
        values["temperature"],
        channel_wise,
        values["cwd_weight"],
        Balance.of(torch_module(artifact), values["balance_weight"]),
    )


def _loss(context: StageContext, artifact: Artifact) -> TaskLoss:
    """Returns the task's loss; for a task without one, which is distilled only, one that outputs of its kind have."""
    return task_loss(context.loss) or LOSSES["squared" if artifact.input.output.whole else "cross_entropy"]


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

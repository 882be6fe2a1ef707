"""The requirements of recovery: examples, labels, a teacher, suitable layers."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spaces.candidate import Value
from spaces.errors import StageError
from spaces.models.torch.accelerator import device_of
from spaces.models.torch.experts import mixtures
from spaces.recovery.adapters import parts_of_split
from spaces.recovery.biases import check_biases
from spaces.recovery.knobs import AUTO, KNOBS, Parts
from spaces.recovery.lora import check_rank
from spaces.recovery.losses.hooks import matching_modules
from spaces.recovery.training.augmentation import AUGMENTATIONS, check_augmentation
from spaces.stages.artifact import Artifact, Split
from spaces.stages.refusals import refusals
from spaces.stages.stage import StageContext
from spaces.task_losses import TaskLoss, task_loss

FIRST = 256  # examples whose labels are checked

# By knob: maps a value to whether it requires the uncompressed network.
NEEDS_TEACHER: dict[str, Callable[[Any], bool]] = {
    "distillation_weight": lambda v: v > 0,
    "cwd_weight": lambda v: v > 0,
    "block_weights": lambda v: v == "frozen_prefix",
}


def check_needs(artifact: Artifact, values: Mapping[str, Iterable[Any]], context: StageContext) -> None:
    """Checks that a training is possible with any of the values.

    Args:
        artifact: The network.
        values: By knob, the values that it can take; `epochs` can be more than 0.
        context: Train split, teacher and accelerator.

    Raises:
        StageError: Examples, labels, a teacher or a suitable layer are missing; the message names the knob.
        ConfigError: The accelerator is not available.
    """
    torch_module(artifact)
    train_split(context)
    device_of(context.accelerator)
    for knob, check in _CHECKS.items():
        for value in values.get(knob, ()):
            check(value, artifact, context)


def unsuited(
    artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
) -> dict[str, dict[Value, str]]:
    """Returns the values that no training is possible with, by knob, each with the reason.

    Args:
        artifact: The network.
        domains: By knob, the values that it can take.
        context: Train split and teacher.

    Raises:
        StageError: There is no train split.
    """
    train_split(context)
    return {
        knob: refusals(partial(check, artifact=artifact, context=context), domains.get(knob, ()))
        for knob, check in _CHECKS.items()
    }


def torch_module(artifact: Artifact) -> nn.Module:
    """Returns the artifact's network. Raises StageError if it is not a torch network."""
    if not isinstance(artifact.model, nn.Module):
        raise StageError(f"torch networks can be trained, but this is an {artifact.kind} model")
    return artifact.model


def check_batch_norm(artifact: Artifact, stage: str) -> None:
    """Raises StageError if a network has a BatchNorm, which needs several examples: their deviation from their mean."""
    norms = (name for name, part in torch_module(artifact).named_modules() if isinstance(part, _BatchNorm))
    if (name := next(norms, None)) is not None:
        raise StageError(
            f"{stage}.batch_size=1 needs a network without BatchNorm, unlike {name}: take at least 2"
        )


def train_split(context: StageContext) -> Split:
    """Returns the train split. Raises StageError if there is none."""
    if context.train is None:
        raise StageError("epochs is more than 0, but the task has no train split to learn from")
    return context.train


def teacher(context: StageContext, knob: str) -> nn.Module:
    """Returns the uncompressed network. Raises StageError, with the knob's name, if there is none."""
    if context.teacher is None or not isinstance(context.teacher.model, nn.Module):
        default = next(k.default for k in KNOBS if k.name == knob)
        off = 0.0 if isinstance(default, float) else default
        raise StageError(
            f"{knob} needs the uncompressed torch network as teacher, but there is none; "
            f"{knob}={off} needs no teacher"
        )
    return context.teacher.model


def has_labels(split: Split, loss: TaskLoss | None) -> bool:
    """Returns whether the loss can be computed with the first examples' labels."""
    _, labels = next(iter(split.batches(FIRST, limit=FIRST)))
    return loss is not None and loss.usable(labels)


def has_features(artifact: Artifact) -> bool:
    """Returns whether a module outputs channels with several positions, for channel-wise distillation."""
    module = torch_module(artifact)
    return bool(matching_modules(module, module, torch.zeros(2, *artifact.input.packed_shape)))


def parts_of(artifact: Artifact) -> Parts:
    """Returns what the network has that some knobs are about."""
    return Parts(has_features(artifact), bool(mixtures(torch_module(artifact))))


def _check_augmentation(name: str, artifact: Artifact, context: StageContext) -> None:
    if name == AUTO:
        return
    check_augmentation(name, artifact.input.float_shape)
    _, labels = next(iter(train_split(context).batches(1, limit=1)))
    if AUGMENTATIONS[name].changes and (labels.ndim > 2 or labels.dtype == object):
        raise StageError(
            f"augmentation={name} changes inputs, but labels of shape {labels.shape[1:]} would have to move with them"
        )


def _check_distillation(weight: float, artifact: Artifact, context: StageContext) -> None:
    if weight < 1:
        _check_labels(train_split(context), context.loss)
    _check_teacher("distillation_weight", weight, context)


def _check_channel_wise(weight: float, artifact: Artifact, context: StageContext) -> None:
    if weight > 0 and has_features(artifact):
        _check_teacher("cwd_weight", weight, context)


def _check_block_weights(kind: str, artifact: Artifact, context: StageContext) -> None:
    _check_teacher("block_weights", kind, context)


def _check_rank(rank: int, artifact: Artifact, context: StageContext) -> None:
    check_rank(torch_module(artifact), rank)


def _check_adapters(n: int, artifact: Artifact, context: StageContext) -> None:
    if n > 1:
        parts_of_split(train_split(context), n)


def _check_tuned(tuned: str, artifact: Artifact, context: StageContext) -> None:
    if tuned == "bias":
        check_biases(torch_module(artifact))


# By knob: checks a value, with the network as `artifact` and the `context`, or raises StageError.
_CHECKS: dict[str, Callable[..., None]] = {
    "augmentation": _check_augmentation,
    "distillation_weight": _check_distillation,
    "cwd_weight": _check_channel_wise,
    "block_weights": _check_block_weights,
    "lora_rank": _check_rank,
    "adapters": _check_adapters,
    "tune": _check_tuned,
}


def _check_teacher(knob: str, value: Any, context: StageContext) -> None:
    if NEEDS_TEACHER[knob](value):
        teacher(context, knob)


def _check_labels(split: Split, loss: str | None) -> None:
    if not has_labels(split, task_loss(loss)):
        why = "has none" if loss is not None else "has labels that no training loss takes"
        raise StageError(
            f"distillation_weight is less than 1, which needs labels, but the train split {why}; "
            "distillation_weight=1 does not need them"
        )

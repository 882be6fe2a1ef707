"""One sparsity-aware training: returns a network some of whose channels are zero, or nearly so."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spaces.candidate import Value
from spaces.errors import StageError
from spaces.models.torch.accelerator import device_of
from spaces.pruning.budgets.mac_shares import MacShares
from spaces.pruning.groups.counts import OF_ACTIVATIONS, product_macs
from spaces.pruning.groups.find import channel_groups
from spaces.pruning.sparsity.batch_norm_sparsity import BatchNormSparsity
from spaces.pruning.sparsity.bottleneck_masks import BottleneckMasks
from spaces.pruning.sparsity.group_envelope import GroupEnvelope
from spaces.pruning.sparsity.sparsifier import Aim, Sparsifier, Subject
from spaces.recovery.requirements import has_labels
from spaces.recovery.training.augmentation import check_augmentation
from spaces.recovery.training.curve import Curve
from spaces.recovery.training.determinism import fixed_threads
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.training import train
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import packed
from spaces.stages.refusals import refusals
from spaces.stages.stage import StageContext
from spaces.task_losses import task_loss

METHODS: dict[str, type[Sparsifier]] = {
    method.name: method for method in (BatchNormSparsity, GroupEnvelope, BottleneckMasks)
}


@dataclass(frozen=True)
class Sparsified:
    """The result of a sparsity-aware training.

    Attributes:
        module: The trained network, of unchanged structure.
        curve: The training curve.
        zero_share: Share of the channels that can be cut which are zero, or nearly so.
        kept_macs_share: Share of the MACs that remains if just these are cut.
    """

    module: nn.Module
    curve: Curve
    zero_share: float
    kept_macs_share: float

    def notes(self) -> dict[str, Any]:
        """Returns the notes for the artifact, JSON-able."""
        return {
            "curve": self.curve.as_json(),
            "zero_share": self.zero_share,
            "kept_macs_share": self.kept_macs_share,
        }


def sparsified(
    artifact: Artifact, values: Mapping[str, Any], context: StageContext, threads: int, key: str
) -> Sparsified:
    """Trains a copy of the artifact's network.

    Args:
        artifact: The network; left as it is.
        values: Canonical values of the sparsify stage; training is not off.
        context: Split, seed, accelerator, cache, watch.
        threads: Number of torch's threads.
        key: Digest of everything that the result depends on.

    Raises:
        StageError: The split or labels are missing, the method is not applicable to the network, or the
            training diverges.
    """
    split = _split(context)
    aim = Aim(values["strength"], values["strength_schedule"], values["level"], context.seed)
    with fixed_threads(threads):
        subject = subject_of(artifact, split)
        sparsifier = METHODS[values["method"]](subject, aim)
    curve = train(
        subject.module,
        split,
        Recipe(
            threads=threads,
            **{name: values[name] for name in ("epochs", "batch_size", "learning_rate", "augmentation")},
        ),
        loss=sparsifier.loss,
        context=context,
        stage="sparsify",
        key=key,
        after_backward=sparsifier.after_backward,
        after_step=sparsifier.after_step,
        output=artifact.input.output,
    )
    on = sparsifier.finish()
    is_on = torch.cat(list(on.values())).double()
    return Sparsified(subject.module, curve, 1 - float(is_on.mean()), float(subject.shares.of(on)))


def subject_of(artifact: Artifact, split: Split) -> Subject:
    """Returns a copy of the artifact's network, with the channels that can be cut and their MACs.

    Raises:
        StageError: The network is not a torch module, or cannot be traced.
    """
    if not isinstance(artifact.model, nn.Module):
        raise StageError(f"sparsify trains torch networks, but got an {artifact.kind} model")
    module = copy.deepcopy(artifact.model)
    groups = channel_groups(module, artifact.input.packed_shape)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters(remove_duplicate=False)}
    macs = product_macs(module, artifact.input.packed_shape)
    shapes |= {OF_ACTIVATIONS: ()}  # stay, whatever is cut
    inputs, _ = next(iter(split.batches(2, limit=2)))
    return Subject(module, groups, MacShares(groups, macs, shapes), torch.from_numpy(packed(inputs)))


def check_needs(artifact: Artifact, values: Mapping[str, Iterable[Any]], context: StageContext) -> None:
    """Checks that a training is possible with any of the values.

    Args:
        artifact: The network.
        values: By knob, the values that it can take.
        context: Train split and accelerator.

    Raises:
        StageError: The split or labels are missing, or a method is not applicable to the network; the message
            names the knob or the layer.
        ConfigError: The accelerator is not available.
    """
    split = _split(context)
    device_of(context.accelerator)
    aim = Aim(max(values["strength"]), level=min(values["level"]))
    for augmentation in values["augmentation"]:
        check_augmentation(augmentation, artifact.input.float_shape)
    for method in values["method"]:
        _check_method(method, artifact, split, aim)


def unsuited(
    artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
) -> dict[str, dict[Value, str]]:
    """Returns the methods and augmentations that do not suit the network, each with the reason.

    Args:
        artifact: The network.
        domains: By knob, the values that it can take.
        context: Train split.

    Raises:
        StageError: The split or labels are missing.
    """
    split = _split(context)
    tries: dict[str, Callable[[Any], None]] = {
        "augmentation": lambda name: check_augmentation(name, artifact.input.float_shape),
        "method": lambda method: _check_method(method, artifact, split, Aim(1.0, level=1.0)),
    }
    return {knob: refusals(check, domains.get(knob, ())) for knob, check in tries.items()}


def _check_method(method: str, artifact: Artifact, split: Split, aim: Aim) -> None:
    if method != "none":
        METHODS[method](subject_of(artifact, split), aim)


def _split(context: StageContext) -> Split:
    """Returns the train split. Raises StageError if there is none, or it has no labels."""
    if context.train is None:
        raise StageError("sparsify.method is not none, but the task has no train split to learn from")
    if context.loss != "cross_entropy" or not has_labels(context.train, task_loss(context.loss)):
        raise StageError(
            "sparsify.method needs labels that are classes, but the train split has none; method=none does not need them"
        )
    return context.train

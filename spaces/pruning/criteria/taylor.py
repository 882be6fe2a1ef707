"""Criterion: first-order change of the loss when a channel is removed.

Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance Estimation for Neural Network Pruning" (arXiv
1906.10771): a set of parameters that are removed together scores `(sum of w * dL/dw)^2`, averaged over
batches.
"""

from typing import TYPE_CHECKING, ClassVar

from spaces.errors import ConfigError, StageError
from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.scoring.normalise import normalise
from spaces.pruning.groups.slices import channel_values

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from spaces.pruning.groups.group import Group


class Taylor(Criterion):
    """Squared first-order change of the cross-entropy if all parameters of a channel went to 0.

    Args:
        batch_size: Examples whose gradients are averaged before they are squared.
    """

    name: ClassVar[str] = "taylor"
    needs_inputs: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    def __init__(self, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ConfigError(f"taylor: batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the mean squares, `(n_channels,)` float64 per group.

        Raises:
            StageError: There are no examples, an example has no label, or the outputs are not logits for all
                labels.
        """
        from torch.nn import functional

        from spaces.pruning.criteria.scoring.gradients import first_order

        labels = _labels(evidence)

        def loss(outputs: "Tensor", part: slice) -> "Tensor":
            _check_classes(outputs, labels)
            return functional.cross_entropy(outputs, labels[part])

        batches = first_order(
            evidence.module, evidence.groups, evidence.inputs, self.batch_size, loss, evidence.output
        )
        sums: dict[str, Tensor] = {}
        for at, effects in enumerate(batches):
            n_examples = len(labels[at * self.batch_size : (at + 1) * self.batch_size])
            for group in evidence.groups:
                square = n_examples * _change(group, effects).square()
                sums[group.name] = square + sums.get(group.name, 0.0)
        return normalise({name: total / len(labels) for name, total in sums.items()}, self.name)


def _change(group: "Group", effects: "dict[str, Tensor]") -> "Tensor":
    """Returns the first-order change of the loss for each channel, `(n_channels,)`."""
    import torch

    parts = [channel_values(effects[s.name], s).sum(dim=1) for s in group.slices if s.name in effects]
    return torch.stack(parts).sum(dim=0)


def _labels(evidence: Evidence) -> "Tensor":
    if len(evidence.inputs) == 0:
        raise StageError("prune.criterion=taylor needs examples, but there are none")
    if evidence.labels is None or bool((evidence.labels < 0).any()):
        raise StageError(
            "prune.criterion=taylor needs a label for every example, but the task does not provide them; "
            "disturbed_taylor needs no labels"
        )
    return evidence.labels


def _check_classes(outputs: "Tensor", labels: "Tensor") -> None:
    if outputs.ndim != 2 or outputs.shape[1] <= int(labels.max()):
        raise StageError(
            "prune.criterion=taylor takes the cross-entropy of logits (n, n_classes), but the outputs are "
            f"{tuple(outputs.shape)} and the largest label is {int(labels.max())}"
        )

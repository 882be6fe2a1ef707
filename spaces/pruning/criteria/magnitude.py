"""Norms of the weights that yield each channel."""

from typing import TYPE_CHECKING

from spaces.errors import StageError
from spaces.pruning.criteria.criterion import Evidence
from spaces.pruning.criteria.scoring.normalise import normalise
from spaces.pruning.groups.group import Group
from spaces.pruning.groups.slices import channel_values

if TYPE_CHECKING:
    import torch


def weight_norms(evidence: Evidence, order: int, criterion: str) -> "dict[str, torch.Tensor]":
    """Returns the mean norm of each channel's filters over the layers that yield it, relative to the group's mean.

    Biases are ignored. A layer's norms are divided by their mean before they are averaged, so that no layer
    of a residual stream dominates. The result is normalised likewise, so that one ranking covers all groups:
    the absolute scale of a layer is meaningless where a BatchNorm follows.

    Args:
        evidence: The network and its groups.
        order: 1 or 2.
        criterion: The criterion's name, for messages.

    Raises:
        StageError: No weight yields the channels of a group, or a weight is not finite.
    """
    from spaces.pruning.groups.derived import effective_weights

    tensors = effective_weights(evidence.module)
    return normalise({g.name: _norms(g, tensors, order, criterion) for g in evidence.groups}, criterion)


def _norms(group: Group, tensors: "dict[str, torch.Tensor]", order: int, criterion: str) -> "torch.Tensor":
    import torch

    filters = [
        channel_values(tensors[s.name], s)
        for s in group.slices
        if s.role == "out" and tensors[s.name].ndim > 1
    ]
    if not filters:
        raise StageError(
            f"prune.criterion={criterion} compares filters, but no weight yields the channels of {group.name}"
        )
    norms = [torch.linalg.vector_norm(values, ord=order, dim=1) for values in filters]
    scaled = [n / n.mean() if float(n.mean()) > 0 else n for n in norms]
    return torch.stack(scaled).mean(dim=0)

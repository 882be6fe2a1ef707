"""Criterion: distance of a channel's filter from the others; filters near the geometric median are redundant.

He, Liu, Wang, Hu and Yang, "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration"
(arXiv 1811.00250): a filter scores the sum of its Euclidean distances to all filters of its layer.
"""

from typing import TYPE_CHECKING, ClassVar

from spaces.errors import StageError
from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.scoring.normalise import normalise
from spaces.pruning.groups.group import Group
from spaces.pruning.groups.slices import channel_values

if TYPE_CHECKING:
    import torch


class Fpgm(Criterion):
    """Sum of distances to the other filters; the filters of dependent layers are concatenated."""

    name: ClassVar[str] = "fpgm"

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the sums of distances, `(n_channels,)` float64 per group.

        Raises:
            StageError: No weight yields the channels of a group.
        """
        from spaces.pruning.groups.derived import effective_weights

        tensors = effective_weights(evidence.module)
        return normalise({g.name: _distances(g, tensors) for g in evidence.groups}, self.name)


def _distances(group: Group, tensors: "dict[str, torch.Tensor]") -> "torch.Tensor":
    import torch

    slices = [s for s in group.slices if s.role == "out" and tensors[s.name].ndim > 1]
    if not slices:
        raise StageError(
            f"prune.criterion=fpgm compares filters, but no weight yields the channels of {group.name}"
        )
    filters = torch.cat([channel_values(tensors[s.name], s) for s in slices], dim=1)
    return torch.cdist(filters, filters).sum(dim=1)

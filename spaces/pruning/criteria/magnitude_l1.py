"""Criterion: L1 norm of a channel's filters.

Li, Kadav, Durdanovic, Samet and Graf, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710).
"""

from typing import TYPE_CHECKING, ClassVar

from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.magnitude import weight_norms

if TYPE_CHECKING:
    import torch


class MagnitudeL1(Criterion):
    """Sum of absolute weights of the filters that yield a channel."""

    name: ClassVar[str] = "magnitude_l1"

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the scores of `weight_norms`, `(n_channels,)` float64 per group.

        Raises:
            StageError: No weight yields the channels of a group, or a weight is not finite.
        """
        return weight_norms(evidence, 1, self.name)

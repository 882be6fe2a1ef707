"""Criterion: L2 norm of a channel's filters.

As in He, Kang, Dong, Fu and Yang, "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks" (arXiv 1808.06866).
"""

from typing import TYPE_CHECKING, ClassVar

from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.magnitude import weight_norms

if TYPE_CHECKING:
    import torch


class MagnitudeL2(Criterion):
    """Euclidean norm of the filters that yield a channel."""

    name: ClassVar[str] = "magnitude_l2"

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the scores of `weight_norms`, `(n_channels,)` float64 per group.

        Raises:
            StageError: No weight yields the channels of a group, or a weight is not finite.
        """
        return weight_norms(evidence, 2, self.name)

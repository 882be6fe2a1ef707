"""Criterion: the scale of a channel in its BatchNorm.

Liu, Li, Shen, Huang, Yan and Zhang, "Learning Efficient Convolutional Networks through Network Slimming" (arXiv
1708.06519): a channel scores `|gamma|`, its factor in the BatchNorm after the convolution.
"""

from typing import TYPE_CHECKING, ClassVar

from spaces.errors import StageError
from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.scoring.normalise import normalise
from spaces.pruning.groups.group import Group
from spaces.pruning.groups.slices import channel_values

if TYPE_CHECKING:
    import torch


class BnGamma(Criterion):
    """Mean of `|gamma|` over the BatchNorms that a channel passes.

    Scores are normalised to equal means over groups, as for the other criteria: the effect of a gamma depends
    on the layer that follows.
    """

    name: ClassVar[str] = "bn_gamma"

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the mean absolute factors, `(n_channels,)` float64 per group, relative to the group's mean.

        Raises:
            StageError: No BatchNorm with factors follows the layers of a group.
        """
        tensors = evidence.module.state_dict()
        return normalise({g.name: _gammas(g, tensors) for g in evidence.groups}, self.name)


def _gammas(group: Group, tensors: "dict[str, torch.Tensor]") -> "torch.Tensor":
    import torch

    gammas = [
        channel_values(tensors[s.name], s).abs().mean(dim=1)
        for s in group.slices
        if s.role == "norm" and s.name.rpartition(".")[2] == "weight"
    ]
    if not gammas:
        raise StageError(
            "prune.criterion=bn_gamma needs a BatchNorm behind every layer that is cut, but there is none behind "
            f"{group.layers[0]}: choose another criterion, or protect the layer"
        )
    return torch.stack(gammas).mean(dim=0)

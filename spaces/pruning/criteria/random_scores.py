"""Random scores: the control that every other criterion has to beat."""

from typing import TYPE_CHECKING, ClassVar

from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.scoring.normalise import normalise

if TYPE_CHECKING:
    import torch


class RandomScores(Criterion):
    """Scores are drawn evenly from [0, 1)."""

    name: ClassVar[str] = "random"

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns draws of the evidence's generator, `(n_channels,)` float64 a group, relative to the group's mean."""
        import torch

        drawn = {
            g.name: torch.rand(g.n_channels, generator=evidence.generator, dtype=torch.float64)
            for g in evidence.groups
        }
        return normalise(drawn, self.name)

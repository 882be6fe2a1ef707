"""Criterion: random scores, the baseline for every other criterion."""

from typing import TYPE_CHECKING, ClassVar

from spaces.pruning.criteria.criterion import Criterion, Evidence
from spaces.pruning.criteria.scoring.normalise import normalise

if TYPE_CHECKING:
    import torch


class RandomScores(Criterion):
    """Scores are drawn uniformly from [0, 1)."""

    name: ClassVar[str] = "random"

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns random numbers, `(n_channels,)` float64 per group, relative to the group's mean."""
        import torch

        scores = {
            g.name: torch.rand(g.n_channels, generator=evidence.generator, dtype=torch.float64)
            for g in evidence.groups
        }
        return normalise(scores, self.name)

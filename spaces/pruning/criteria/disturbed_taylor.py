"""Criterion: first-order change of the outputs when a channel is removed; needs no labels.

Chen, Fang, Ma and Wang, "SlimSAM: 0.1% Data Makes Segment Anything Slim" (arXiv 2312.05284): the loss is the mean
squared error between the network's outputs and its own outputs plus normal noise. Without the noise every gradient would
be 0. A channel scores the sum of `|w * dL/dw|`, averaged over the tensors that shrink with it.
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


class DisturbedTaylor(Criterion):
    """First-order change of the distance to the disturbed outputs if the parameters of a channel went to 0.

    Absolute values are taken per batch and then averaged: the sign of the noise is random, so signed changes
    would cancel over batches.

    Args:
        sigma: Standard deviation of the noise, relative to that of the outputs of a batch. All gradients are
            proportional to it, so that the ranking hardly depends on it. It is relative because noise below
            the rounding error of large outputs would have no effect. With 0 all scores are 0.
        batch_size: Examples per backward pass.
    """

    name: ClassVar[str] = "disturbed_taylor"
    needs_inputs: ClassVar[bool] = True

    def __init__(self, sigma: float = 0.01, batch_size: int = 32) -> None:
        if not 0 <= sigma < float("inf"):
            raise ConfigError(f"disturbed_taylor: sigma must be at least 0, not {sigma}")
        if batch_size < 1:
            raise ConfigError(f"disturbed_taylor: batch_size must be at least 1, not {batch_size}")
        self.sigma, self.batch_size = sigma, batch_size

    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the mean absolute changes, `(n_channels,)` float64 per group.

        Raises:
            StageError: There are no examples.
        """
        from spaces.pruning.criteria.scoring.gradients import first_order

        if len(evidence.inputs) == 0:
            raise StageError("prune.criterion=disturbed_taylor needs examples, but there are none")

        def loss(outputs: "Tensor", part: slice) -> "Tensor":
            del part
            return _disturbed_error(outputs, self.sigma, evidence.generator)

        batches = first_order(
            evidence.module, evidence.groups, evidence.inputs, self.batch_size, loss, evidence.output
        )
        sums: dict[str, Tensor] = {}
        for effects in batches:
            for group in evidence.groups:
                sums[group.name] = _change(group, effects) + sums.get(group.name, 0.0)
        return normalise(sums, self.name)


def _disturbed_error(outputs: "Tensor", sigma: float, generator: "torch.Generator") -> "Tensor":
    """Returns the mean squared error between outputs and the same outputs plus noise."""
    import torch

    plain = outputs.detach()
    noise = torch.randn(plain.shape, generator=generator, dtype=plain.dtype)
    target = plain + sigma * plain.std(correction=0) * noise
    return (outputs - target).square().mean()


def _change(group: "Group", effects: "dict[str, Tensor]") -> "Tensor":
    """Returns the absolute first-order change for each channel, mean over tensors, `(n_channels,)`."""
    import torch

    parts = [channel_values(effects[s.name].abs(), s).sum(dim=1) for s in group.slices if s.name in effects]
    return torch.stack(parts).mean(dim=0)

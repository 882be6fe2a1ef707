"""A moving average of the weights along a training (Polyak & Juditsky 1992), kept beside the network."""

import copy

import torch
from torch import nn


class Average(nn.Module):
    """An exponential moving average of a network's parameters; its buffers are those of the network.

    The decay rises to its value over the first steps, as `min(decay, (1 + t) / (10 + t))`, so that the initial weights are
    soon forgotten.

    Args:
        network: The network that is trained.
        decay: Share of the average that stays in a step, in (0, 1).
    """

    step: torch.Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average towards the network's present weights."""
        self.step += 1
        t = int(self.step)
        share = 1 - min(self.decay, (1 + t) / (10 + t))
        for mean, value in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, share)
        self._copy_buffers(network)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Puts the average into the network."""
        for mean, value in zip(self.network.parameters(), network.parameters(), strict=True):
            value.copy_(mean)

    def _copy_buffers(self, network: nn.Module) -> None:
        for mean, value in zip(self.network.buffers(), network.buffers(), strict=True):
            mean.copy_(value)

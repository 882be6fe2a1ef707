"""The parameters that make a channel: how large they are together, and scaling them together."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spaces.pruning.groups.group import Group, Slice

MAKERS = ("out", "norm")
"""Roles of the slices that make a channel; those of role `in` belong to the layers that take it."""


def making_slices(group: Group, parameters: Mapping[str, Tensor]) -> list[Slice]:
    """Returns the slices of parameters (not buffers) that make the group's channels."""
    return [part for part in group.slices if part.role in MAKERS and part.name in parameters]


def channel_norms(group: Group, parameters: Mapping[str, Tensor]) -> Tensor:
    """Returns the Euclidean norm of all parameters that make each channel, `(n_channels,)` float64, on the CPU.

    Args:
        group: The channels.
        parameters: The network's, by name; on any device.
    """
    total = torch.zeros(group.n_channels, dtype=torch.float64)
    for part in making_slices(group, parameters):
        values = parameters[part.name].detach()
        others = [axis for axis in range(values.ndim) if axis != part.axis]
        squares = (values.square().sum(others) if others else values.square()).cpu().double()
        total += squares[torch.from_numpy(part.rows)].sum(1)
    return total.sqrt()


def scale_channels(
    group: Group, parameters: Mapping[str, Tensor], factors: Tensor, prefixes: tuple[str, ...] | None = None
) -> None:
    """Multiplies, in place, all parameters that make each channel.

    Args:
        group: The channels.
        parameters: The network's, by name; on any device.
        factors: `(n_channels,)`, on the CPU.
        prefixes: Names of the modules whose parameters are meant; None for all.
    """
    for part in making_slices(group, parameters):
        if prefixes is not None and part.name.rpartition(".")[0] not in prefixes:
            continue
        values = parameters[part.name]
        along = torch.ones(values.shape[part.axis], dtype=values.dtype)
        along[torch.from_numpy(part.rows)] = factors.to(values.dtype)[:, None]
        shape = [-1 if axis == part.axis else 1 for axis in range(values.ndim)]
        with torch.no_grad():
            values.mul_(along.view(shape).to(values.device))

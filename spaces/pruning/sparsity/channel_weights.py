"""Norms and joint scaling of the parameters that produce a channel: filters, biases, BatchNorm's vectors."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spaces.pruning.groups.group import Group, Slice

MAKERS = ("out", "norm")
"""Roles of the slices that produce a channel; role `in` belongs to layers that take it as input."""


def making_slices(group: Group, parameters: Mapping[str, Tensor]) -> list[Slice]:
    """Returns the slices of parameters (not buffers) that produce the group's channels."""
    return [part for part in group.slices if part.role in MAKERS and part.name in parameters]


def channel_norms(group: Group, parameters: Mapping[str, Tensor]) -> Tensor:
    """Returns the L2 norm of all parameters that produce each channel, `(n_channels,)` float64, on the CPU.

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
    """Multiplies, in place, all parameters that produce each channel by a factor.

    Args:
        group: The channels.
        parameters: The network's, by name; on any device.
        factors: `(n_channels,)`, on the CPU.
        prefixes: Names of the modules whose parameters are scaled; None for all.
    """
    for part in making_slices(group, parameters):
        if prefixes is not None and part.name.rpartition(".")[0] not in prefixes:
            continue
        values = parameters[part.name]
        axis_factors = torch.ones(values.shape[part.axis], dtype=values.dtype)
        axis_factors[torch.from_numpy(part.rows)] = factors.to(values.dtype)[:, None]
        shape = [-1 if axis == part.axis else 1 for axis in range(values.ndim)]
        with torch.no_grad():
            values.mul_(axis_factors.view(shape).to(values.device))

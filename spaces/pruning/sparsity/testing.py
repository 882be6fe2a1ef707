"""A small network to be made sparse, for tests of methods."""

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from spaces.pruning.budgets.mac_shares import MacShares
from spaces.pruning.criteria.testing import small_groups, small_network
from spaces.pruning.groups.counts import weight_uses
from spaces.pruning.groups.find import channel_groups
from spaces.pruning.groups.group import Group
from spaces.pruning.sparsity.sparsifier import Subject

SHAPE = (3, 6, 6)


def small_shares() -> MacShares:
    """Returns the MACs as a function of the channels of `SmallNetwork`."""
    return _shares(small_network(), small_groups())


def small_subject(groups: Sequence[Group] | None = None, module: nn.Module | None = None) -> Subject:
    """Returns a network for inputs of `SHAPE` in the form that methods take.

    Args:
        groups: The channels that can be cut; None for all.
        module: The network; None for a `SmallNetwork`.
    """
    if groups is None:
        groups = small_groups() if module is None else channel_groups(module, SHAPE)
    module = small_network() if module is None else module
    inputs = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    return Subject(module, tuple(groups), _shares(module, groups), inputs)


def _shares(module: nn.Module, groups: Sequence[Group]) -> MacShares:
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    macs = {name: n * prod(shapes[name]) for name, n in weight_uses(module, SHAPE).items()}
    return MacShares(groups, macs, shapes)

"""Share of a network's MACs that remains after a cut: exact for a cut, differentiable for soft masks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spaces.pruning.groups.group import Group

Kept = Mapping[str, Tensor]
"""By name of the group, how much of each channel is kept, `(n_channels,)` in [0, 1]."""


class MacShares:
    """MACs as a function of the channels that are kept.

    A layer's MACs are proportional to the number of elements of its weight, that is to the product, over the
    weight's axes, of the share of indices that is kept. So inner layers lose MACs by their input and their
    output channels.

    Args:
        groups: The channels that can be cut.
        layer_macs: MACs of every layer of the dense network for one example, by name of its weight.
        shapes: Shape of every weight in `layer_macs`.
    """

    def __init__(
        self, groups: Sequence[Group], layer_macs: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
    ) -> None:
        self.groups = tuple(groups)
        layers = {name: at for at, name in enumerate(layer_macs)}
        parts = [(g, part) for g, group in enumerate(groups) for part in group.slices if part.name in layers]
        axes = max((part.axis for _, part in parts), default=0) + 1
        self._macs = torch.tensor(list(layer_macs.values()), dtype=torch.float64)
        # share of an axis' indices that belongs to one channel of a group: (axis, layer, group)
        self._slope = torch.zeros(axes, len(layers), len(self.groups), dtype=torch.float64)
        for g, part in parts:
            size = shapes[part.name][part.axis]
            self._slope[part.axis, layers[part.name], g] += part.rows.shape[1] / size
        counts = torch.tensor([float(group.n_channels) for group in groups], dtype=torch.float64)
        self._constant = 1.0 - self._slope @ counts  # share of an axis' indices that no group owns

    def of(self, kept: Kept) -> Tensor:
        """Returns the share of MACs that is kept, a float64 scalar; differentiable in `kept`."""
        sums = [kept[group.name].double().sum() for group in self.groups]
        n_kept = torch.stack(sums) if sums else torch.zeros(0, dtype=torch.float64)
        axis_shares = self._constant + self._slope @ n_kept  # (axis, layer)
        return (self._macs * axis_shares.prod(0)).sum() / self._macs.sum()

    def costs(self) -> dict[str, Tensor]:
        """Returns the share of MACs that each channel accounts for, `(n_channels,)` float64, by group."""
        whole = {group.name: _ones(group).requires_grad_() for group in self.groups}
        if not whole:
            return {}
        gradients = torch.autograd.grad(self.of(whole), list(whole.values()))
        return dict(zip(whole, gradients, strict=True))

    def least(self) -> float:
        """Returns the share of MACs that remains with one channel in every group."""
        return float(self.of({group.name: _ones(group) / group.n_channels for group in self.groups}))


def _ones(group: Group) -> Tensor:
    return torch.ones(group.n_channels, dtype=torch.float64)

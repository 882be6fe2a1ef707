"""Extracts the values of each channel from a parameter."""

from typing import TYPE_CHECKING

from spaces.pruning.groups.group import Slice

if TYPE_CHECKING:
    import torch


def channel_values(tensor: "torch.Tensor", part: Slice) -> "torch.Tensor":
    """Returns the values of each channel, `(n_channels, n_values)` float64.

    Args:
        tensor: The parameter or buffer that `part` names, or anything of its shape.
        part: The indices along an axis that belong to each channel.
    """
    import torch

    rows = torch.from_numpy(part.rows)
    chosen = tensor.detach().movedim(part.axis, 0)[rows.reshape(-1)]
    return chosen.reshape(len(rows), -1).double()

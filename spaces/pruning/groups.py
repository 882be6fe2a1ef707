"""Which channels can be cut, and what goes with them: the dependency analysis is torch-pruning's."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["out", "in", "norm"]


@dataclass(frozen=True, eq=False)
class Slice:
    """One axis of one parameter or buffer that shrinks with a group.

    Attributes:
        name: Its name in the state dict, e.g. `layer1.0.conv1.weight`.
        axis: The axis that shrinks.
        rows: `(n_channels, k)` int64: the indices along the axis that belong to each channel (k > 1 where a channel
            becomes several features, e.g. in a linear layer behind a flatten).
        role: `out` (what yields the channels: weight and bias), `in` (what takes them), `norm` (a BatchNorm's vectors).
    """

    name: str
    axis: int
    rows: NDArray[np.int64]
    role: Role


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are cut one by one, each with all that depends on it.

    Attributes:
        name: Weight of the first layer that yields these channels, e.g. `layer1.0.conv1.weight`.
        layers: Weights of all layers whose output channels are coupled in this group, in the network's order.
        n_channels: How many channels there are.
        slices: Every parameter and buffer axis that shrinks with them.
    """

    name: str
    layers: tuple[str, ...]
    n_channels: int
    slices: tuple[Slice, ...]

"""A group: channels that can only be cut together, and all that shrinks with them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["out", "in", "norm", "other"]


@dataclass(frozen=True, eq=False)
class Slice:
    """One axis of one parameter or buffer that shrinks with a group.

    Attributes:
        name: Its name in the state dict, e.g. `layer1.0.conv1.weight`.
        axis: The axis that shrinks.
        rows: `(n_channels, k)` int64: the indices along the axis that belong to each channel (k > 1 where a channel
            becomes several features, e.g. in a linear layer behind a flatten).
        role: `out` (what yields the channels: weight and bias), `in` (what takes them), `norm` (a BatchNorm's vectors),
            `other` (what else goes along with them, e.g. a PReLU's slopes).
    """

    name: str
    axis: int
    rows: NDArray[np.int64]
    role: Role


@dataclass(frozen=True, eq=False)
class PassThrough:
    """A module that passes channels on under other numbers: it has the methods of `channel_map.ChannelMap`.

    Attributes:
        name: The module's name.
        inputs: `(n_channels, k)` int64: its inputs that belong to each channel; k may be 0.
        outputs: `(n_channels, k)` int64: its outputs likewise.
        n_inputs: How many inputs it has in all.
        n_outputs: How many outputs it has in all.
    """

    name: str
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    n_inputs: int
    n_outputs: int


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are cut one by one, each with all that depends on it.

    The channels need not be all that a layer has: where a residual stream is widened, some of them came in with it, and the
    others form a group of their own.

    Attributes:
        name: Weight of the first layer that yields these channels, e.g. `layer1.0.conv1.weight`; where it yields the
            channels of another group too, `#2` follows, and so on.
        layers: Weights of all layers whose output channels are coupled in this group, in the network's order.
        n_channels: How many channels there are.
        slices: Every parameter and buffer axis that shrinks with them.
        pass_throughs: Modules without weights that have to be told.
    """

    name: str
    layers: tuple[str, ...]
    n_channels: int
    slices: tuple[Slice, ...]
    pass_throughs: tuple[PassThrough, ...] = ()

    @property
    def outputs_per_channel(self) -> int:
        """Most output channels of a layer that go with one channel; more than 1 in a grouped convolution."""
        return max(int(part.rows.shape[1]) for part in self.slices if part.role == "out")


@dataclass(frozen=True)
class LeftAlone:
    """Layers whose output channels, or some of them, cannot be cut.

    Attributes:
        layers: Their weights.
        reason: Why, for people.
    """

    layers: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{', '.join(self.layers)}: {self.reason}"


@dataclass(frozen=True)
class Analysis:
    """What can be cut in a network, and what cannot.

    Attributes:
        groups: The channels that can be cut, in the order of the network's state dict; each was tried on a copy.
        left_alone: The layers of which this is not so.
    """

    groups: tuple[Group, ...]
    left_alone: tuple[LeftAlone, ...]

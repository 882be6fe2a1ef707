"""A group: channels of dependent layers, and every parameter axis that shrinks with them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spaces.pruning.tracing.products import Product


MOST_NAMED = 4  # layers of a reason in texts
Role = Literal["out", "in", "norm", "other"]


@dataclass(frozen=True, eq=False)
class Slice:
    """One axis of one parameter or buffer that shrinks with a group.

    Attributes:
        name: Its name in the state dict, e.g. `layer1.0.conv1.weight`.
        axis: The axis that shrinks.
        rows: `(n_channels, k)` int64: the indices along the axis that belong to each channel (k > 1 where a channel
            becomes several features, e.g. in a linear layer after a flatten).
        role: `out` (weight and bias of a layer that outputs the channels), `in` (weight of a layer that takes
            them as input), `norm` (a BatchNorm's vectors), `other` (anything else that shrinks with them,
            e.g. a PReLU's slopes).
        power: What is left is multiplied by the share of channels that is left, to this power.
    """

    name: str
    axis: int
    rows: NDArray[np.int64]
    role: Role
    power: float = 0.0


@dataclass(frozen=True, eq=False)
class PassThrough:
    """A module that passes channels on under other indices: a `channel_map.ChannelMap`.

    Attributes:
        name: The module's name.
        inputs: `(n_channels, k)` int64: indices of its input channels that belong to each channel; k may be
            0.
        outputs: `(n_channels, k)` int64: indices of its output channels likewise.
        n_inputs: Number of its input channels.
        n_outputs: Number of its output channels.
    """

    name: str
    inputs: NDArray[np.int64]
    outputs: NDArray[np.int64]
    n_inputs: int
    n_outputs: int


@dataclass(frozen=True, eq=False)
class ProductSlice:
    """One axis of a matrix product that shrinks with a group.

    Attributes:
        name: The product's name.
        product: The product.
        axis: The axis that shrinks.
        rows: `(n_channels, k)` int64: the indices along the axis that belong to each channel.
    """

    name: str
    product: "Product"
    axis: int
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class SizeAttribute:
    """A number in a module of the user's that shrinks with a group, e.g. the width of its attention heads.

    Attributes:
        module: Name of the module.
        name: Name of its attribute.
        per_channel: By how much it shrinks with each channel.
        index: Its place, where the attribute is a tuple or list of numbers.
    """

    module: str
    name: str
    per_channel: int
    index: int | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that can each be cut, together with every parameter slice that depends on them.

    A group need not contain all channels of a layer: where a residual stream is widened, the channels of the
    narrower stream and the added ones form separate groups.

    Attributes:
        name: Weight of the first layer that outputs these channels, e.g. `layer1.0.conv1.weight`; `#2` and so
            on is appended where that layer also outputs the channels of other groups.
        layers: Weights of all layers whose output channels depend on each other in this group, in the
            network's order.
        n_channels: How many channels there are.
        slices: Every parameter and buffer axis that shrinks with them.
        pass_throughs: Modules without weights that a cut has to adapt.
        products: Matrix products that shrink with the channels, and whose cost is not that of a weight alone.
        sizes: Numbers in modules that shrink with the channels.
        joined: Names of other groups that became part of this one, since one number gives the size of both.
    """

    name: str
    layers: tuple[str, ...]
    n_channels: int
    slices: tuple[Slice, ...]
    pass_throughs: tuple[PassThrough, ...] = ()
    products: tuple[ProductSlice, ...] = ()
    sizes: tuple[SizeAttribute, ...] = ()
    joined: tuple[str, ...] = ()

    @property
    def rescaled(self) -> bool:
        """Whether what is left of some slices is scaled in a cut."""
        return any(part.power for part in self.slices)

    @property
    def outputs_per_channel(self) -> int:
        """Most output channels of a layer per channel of the group; more than 1 in grouped convolutions."""
        return max(int(part.rows.shape[1]) for part in self.slices if part.role == "out")


@dataclass(frozen=True)
class LeftAlone:
    """Layers whose output channels, or some of them, cannot be cut.

    Attributes:
        layers: Their weights.
        reason: Explanation for the report.
    """

    layers: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        more = f" and {len(self.layers) - MOST_NAMED} more" if len(self.layers) > MOST_NAMED + 1 else ""
        return f"{', '.join(self.layers[:MOST_NAMED] if more else self.layers)}{more}: {self.reason}"


@dataclass(frozen=True)
class Analysis:
    """The channels of a network that can be cut, and the layers with others.

    Attributes:
        groups: The channels that can be cut, in the order of the network's state dict; verified by trial
            cuts.
        left_alone: The layers with channels that cannot be cut.
    """

    groups: tuple[Group, ...]
    left_alone: tuple[LeftAlone, ...]

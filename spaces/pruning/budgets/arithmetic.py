"""What a cut network costs, reckoned from the channels that each group keeps, without building it."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from spaces.pruning.groups.counts import Counts, weight_uses
from spaces.pruning.groups.group import Group

NKept: TypeAlias = NDArray[np.int64]
"""`(..., n_groups)`: how many channels each group keeps."""


class CutArithmetic:
    """Exact: what is cut of an axis is what its groups lose, and a parameter's size is the product of its axes.

    Args:
        module: The network before the cut.
        groups: Its groups.
        input_shape: Shape of one example.
    """

    def __init__(self, module: nn.Module, groups: Sequence[Group], input_shape: tuple[int, ...]) -> None:
        self.n_channels: NKept = np.array([group.n_channels for group in groups], np.int64)
        uses = weight_uses(module, input_shape)
        parameters = dict(module.named_parameters())
        self._sizes = _Sizes({name: tuple(p.shape) for name, p in parameters.items()}, groups)
        self._macs = np.array([uses.get(name, 0) for name in parameters], np.int64)
        self._bytes = np.array([p.element_size() for p in parameters.values()], np.int64)

    def macs(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns multiply-accumulates for one example, `(...,)`."""
        found: NDArray[np.int64] = self._sizes(n_kept) @ self._macs
        return found

    def weight_bytes(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns the parameters' bytes, `(...,)`."""
        found: NDArray[np.int64] = self._sizes(n_kept) @ self._bytes
        return found

    def parameters(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns how many parameters there are, `(...,)`."""
        found: NDArray[np.int64] = self._sizes(n_kept).sum(axis=-1)
        return found

    def counts(self, n_kept: NKept) -> Counts:
        """Returns all of them for one cut `(n_groups,)`."""
        return Counts(int(self.macs(n_kept)), int(self.parameters(n_kept)), int(self.weight_bytes(n_kept)))


class _Sizes:
    """Sizes of all parameters: constants times at most a few axes whose widths are affine in the kept channels."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], groups: Sequence[Group]) -> None:
        most = max((len(shape) for shape in shapes.values()), default=0)
        self._full = np.ones((most, len(shapes)), np.int64)
        self._per_channel = np.zeros((most, len(shapes), len(groups)), np.int64)
        self._n_channels = np.array([group.n_channels for group in groups], np.int64)
        places = {name: at for at, name in enumerate(shapes)}
        for name, shape in shapes.items():
            self._full[: len(shape), places[name]] = shape
        for at, group in enumerate(groups):
            for part in (s for s in group.slices if s.name in places):
                self._per_channel[part.axis, places[part.name], at] += part.rows.shape[1]
        # Axes that nothing cuts are constants, so that a call has less to do.
        cut: NDArray[np.bool_] = self._per_channel.sum(axis=2) > 0
        self._constant = np.where(cut, 1, self._full).prod(axis=0)
        self._axes = [axis for axis in range(most) if cut[axis].any()]
        self._full = np.where(cut, self._full, 1)

    def __call__(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns the sizes `(..., n_parameters)`."""
        removed = self._n_channels - n_kept
        sizes = np.broadcast_to(self._constant, (*removed.shape[:-1], len(self._constant)))
        for axis in self._axes:
            sizes = sizes * (self._full[axis] - removed @ self._per_channel[axis].T)
        return sizes

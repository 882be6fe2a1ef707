"""Cost of a cut network, computed from the number of channels that each group keeps, without building it."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from spaces.pruning.groups.counts import OF_ACTIVATIONS, Counts, product_macs
from spaces.pruning.groups.group import Group
from spaces.pruning.tracing.trace import N_EXAMPLES

NKept: TypeAlias = NDArray[np.int64]
"""`(..., n_groups)`: how many channels each group keeps."""


class CutArithmetic:
    """Exact MACs, parameters and bytes: the axes of parameters shrink with the groups.

    Args:
        module: The network before the cut.
        groups: Its groups.
        input_shape: Shape of one example.
    """

    def __init__(self, module: nn.Module, groups: Sequence[Group], input_shape: tuple[int, ...]) -> None:
        self.n_channels: NKept = np.array([group.n_channels for group in groups], np.int64)
        macs, self._products = product_macs(module, input_shape), _Products(groups)
        for product in self._products.with_weights:  # their cost is not that of the weight alone
            macs[OF_ACTIVATIONS] += prod(product.shape) // N_EXAMPLES
            macs[str(product.weight)] -= prod(product.shape) // N_EXAMPLES
        parameters = dict(module.named_parameters())
        self._sizes = _Sizes({name: tuple(p.shape) for name, p in parameters.items()}, groups)
        self._macs = np.array([macs.get(n, 0) // p.numel() for n, p in parameters.items()], np.int64)
        self._rest = sum(macs.values()) - int(self._sizes(self.n_channels) @ self._macs)
        self._bytes = np.array([p.element_size() for p in parameters.values()], np.int64)

    def macs(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns multiply-accumulates for one example, `(...,)`."""
        macs: NDArray[np.int64] = self._sizes(n_kept) @ self._macs
        return macs + self._rest - self._products.lost(n_kept)

    def weight_bytes(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns the parameters' bytes, `(...,)`."""
        n_bytes: NDArray[np.int64] = self._sizes(n_kept) @ self._bytes
        return n_bytes

    def parameters(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns the number of parameters, `(...,)`."""
        n_parameters: NDArray[np.int64] = self._sizes(n_kept).sum(axis=-1)
        return n_parameters

    def counts(self, n_kept: NKept) -> Counts:
        """Returns MACs, parameters and bytes for one cut `(n_groups,)`."""
        return Counts(int(self.macs(n_kept)), int(self.parameters(n_kept)), int(self.weight_bytes(n_kept)))


class _Products:
    """Products whose cost depends on more than the size of a weight: how many multiply-accumulates they lose in a cut."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._n_channels = np.array([group.n_channels for group in groups], np.int64)
        parts = [(at, part) for at, group in enumerate(groups) for part in group.products]
        products = {part.name: part.product for _, part in parts}
        self.with_weights = [product for product in products.values() if product.weight is not None]
        positions = {name: at for at, name in enumerate(products)}
        self._full = np.array([product.shape for product in products.values()], np.int64).reshape(-1, 4)
        self._per_channel = np.zeros((*self._full.shape, len(groups)), np.int64)
        for at, part in parts:
            self._per_channel[positions[part.name], part.axis, at] += part.rows.shape[1]

    def lost(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns the multiply-accumulates that one example saves, `(...,)`."""
        left = self._full - np.tensordot(self._n_channels - n_kept, self._per_channel, axes=(-1, -1))
        lost: NDArray[np.int64] = (self._full.prod(axis=1) - left.prod(axis=-1)).sum(axis=-1) // N_EXAMPLES
        return lost


class _Sizes:
    """Sizes of parameters: constants times the lengths of cut axes, which are affine in kept channels."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], groups: Sequence[Group]) -> None:
        n_axes = max((len(shape) for shape in shapes.values()), default=0)
        self._full = np.ones((n_axes, len(shapes)), np.int64)
        self._per_channel = np.zeros((n_axes, len(shapes), len(groups)), np.int64)
        self._n_channels = np.array([group.n_channels for group in groups], np.int64)
        positions = {name: at for at, name in enumerate(shapes)}
        for name, shape in shapes.items():
            self._full[: len(shape), positions[name]] = shape
        for at, group in enumerate(groups):
            for part in (s for s in group.slices if s.name in positions):
                self._per_channel[part.axis, positions[part.name], at] += part.rows.shape[1]
        # Axes that no group cuts are folded into the constant, which makes calls faster.
        cut: NDArray[np.bool_] = self._per_channel.sum(axis=2) > 0
        self._constant = np.where(cut, 1, self._full).prod(axis=0)
        self._axes = [axis for axis in range(n_axes) if cut[axis].any()]
        self._full = np.where(cut, self._full, 1)

    def __call__(self, n_kept: NKept) -> NDArray[np.int64]:
        """Returns the sizes `(..., n_parameters)`."""
        removed = self._n_channels - n_kept
        sizes = np.broadcast_to(self._constant, (*removed.shape[:-1], len(self._constant)))
        for axis in self._axes:
            sizes = sizes * (self._full[axis] - removed @ self._per_channel[axis].T)
        return sizes

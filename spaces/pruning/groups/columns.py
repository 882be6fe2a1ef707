"""Convolutions as matrix products: `weight_matrix(layer) @ columns(layer, x)` is the output without the bias.

`n_kernel` is the number of kernel elements per input channel: 9 for a 3x3 convolution, 1 for a linear layer.
"""

from itertools import chain
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn import functional

Layer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


def is_dense(module: nn.Module) -> bool:
    """Whether every output depends on every input channel: in linear layers and ungrouped convolutions."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.groups == 1
    return isinstance(module, nn.Linear)


def weight_matrix(layer: Layer) -> Tensor:
    """Returns the weight as `(n_out, n_in * n_kernel)` float64, kernel elements innermost."""
    return layer.weight.detach().flatten(1).double()


def columns(layer: Layer, x: Tensor) -> Tensor:
    """Returns the inputs of each output position (im2col), `(n_in * n_kernel, n_positions)`.

    Args:
        layer: A layer for which `is_dense` holds.
        x: Its input, `(n, n_in, *size)` for a convolution, `(*n, n_in)` for a linear layer.
    """
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2).T
    x = _padded(layer, x)
    for axis, (size, stride, step) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=2
    ):
        x = x.unfold(axis, (size - 1) * step + 1, stride)[..., ::step]
    n_axes = len(layer.kernel_size)  # x is now (n, n_in, *positions, *kernel)
    kernel = range(2 + n_axes, 2 + 2 * n_axes)
    return x.permute(1, *kernel, 0, *range(2, 2 + n_axes)).flatten(0, n_axes).flatten(1)


def rows(layer: Layer, y: Tensor) -> Tensor:
    """Returns an output of the layer as `(n_out, n_positions)`, the positions in the order of `columns`."""
    return y.flatten(0, -2).T if isinstance(layer, nn.Linear) else y.transpose(0, 1).flatten(1)


def column_powers(layer: Layer, x: Tensor) -> Tensor:
    """Returns the sum of squares of each row of `columns(layer, x)`, `(n_in * n_kernel,)` float64.

    Squares are summed over examples first, which needs far less memory than the columns.
    """
    axes = tuple(range(x.ndim - 1)) if isinstance(layer, nn.Linear) else (0,)
    return columns(layer, x.double().square().sum(dim=axes, keepdim=True)).sum(dim=1)


def _padded(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    sides = list(chain(*reversed(_padding(layer))))
    return functional.pad(x, sides, mode) if any(sides) else x


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[tuple[int, int]]:
    """Returns the padding before and after each axis of a convolution's input."""
    if not isinstance(layer.padding, str):
        return [(p, p) for p in layer.padding]
    same = layer.padding == "same"
    totals = [step * (size - 1) * same for size, step in zip(layer.kernel_size, layer.dilation, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]

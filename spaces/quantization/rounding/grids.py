"""Grids as torch tensors: quantization with gradients."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.quantization.schemes.scheme import Grid

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_FACTOR = (
    1.5  # by which a weight's scale changes: a bias, of at most 2^29 of its steps, stays within int32
)

N_FACTORS = 41  # of a scale that are compared


@dataclass(frozen=True)
class TorchGrid:
    """A grid: integers from `low` to `high` represent `scale * (q - zero)`.

    Attributes:
        scale: Step size, in the shape that broadcasts over the values.
        zero: The integer that represents 0, same shape.
        low: Smallest integer.
        high: Largest integer.
        axis: The channel axis; None for one scale.
    """

    scale: "Tensor"
    zero: "Tensor"
    low: int
    high: int
    axis: int | None

    @classmethod
    def of(cls, grid: Grid, n_axes: int, device: "torch.device | str", reduced: bool = False) -> "TorchGrid":
        """Returns a grid for values of `n_axes` axes."""
        import torch

        shape = [1] * n_axes
        if grid.axis is not None:
            shape[grid.axis] = -1
        bits = grid.bits - int(reduced)
        scale = torch.as_tensor(np.array(grid.scale), device=device).reshape(
            shape if grid.axis is not None else ()
        )
        zero = torch.as_tensor(grid.zero_point.astype(np.float32), device=device).reshape(scale.shape)
        return cls(scale, zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, grid.axis)

    def quantized(self, values: "Tensor") -> "Tensor":
        """Returns the values on the grid, without gradients through the rounding."""
        integers = ((values / self.scale).round() + self.zero).clamp(self.low, self.high)
        return (integers - self.zero) * self.scale

    def straight_through(self, values: "Tensor", scale: "Tensor | None" = None) -> "Tensor":
        """Returns the values on the grid; gradients pass the rounding as if it were not there.

        The gradient of the scale is that of LSQ (Esser et al., arXiv 1902.08153, equation 3).

        Args:
            values: The values.
            scale: A scale instead of the grid's, with a gradient.
        """
        if scale is None and self.axis is None:  # one pass over large activations instead of seven
            import torch

            zero = self.zero.to(torch.int32)
            return torch.fake_quantize_per_tensor_affine(values, self.scale, zero, self.low, self.high)
        scale = self.scale if scale is None else scale
        steps = (values / scale + self.zero).clamp(self.low, self.high)
        return (steps + (steps.round() - steps).detach() - self.zero) * scale

    def with_scale(self, scale: "Tensor") -> "TorchGrid":
        """Returns the grid with another scale."""
        return replace(self, scale=scale)

    def as_grid(self, bits: int) -> Grid:
        """Returns the grid for a storage of so many bits."""
        flat: Any = self.scale.detach().cpu().numpy().astype(np.float32)
        zero = self.zero.detach().cpu().numpy().astype(np.int64)
        shape = () if self.axis is None else (-1,)
        return Grid(flat.reshape(shape), zero.reshape(shape), bits, self.axis)


def weighted_scale(rows: "Tensor", importance: "Tensor", grid: TorchGrid) -> "Tensor":
    """Returns the scale of least weighted error of the nearest rounding.

    The error of an output is the sum of its weights' squared errors times the second moments of their inputs, if inputs are
    uncorrelated: the diagonal of the Hessian that GPTQ uses in full.

    Args:
        rows: `(n_groups, n_out, n_in)`.
        importance: Second moments of the inputs, `(n_groups, n_in)`.
        grid: The grid, with a scale `()` or `(n_groups, n_out, 1)`; factors of this scale are compared.
    """
    import torch

    weights = importance[:, None]
    best, found = None, grid.scale
    for factor in torch.linspace(1 / MOST_FACTOR, MOST_FACTOR, N_FACTORS).tolist():
        scale = grid.scale * factor
        error = ((grid.with_scale(scale).quantized(rows) - rows) ** 2 * weights).sum(2, keepdim=True)
        error = error if grid.scale.ndim else error.sum()
        if best is None:
            best, found = error, scale
        else:
            found, best = torch.where(error < best, scale, found), torch.minimum(error, best)
    return found


def bounded(logarithm: "Tensor") -> "Tensor":
    """Returns the factor of a learned scale, at most `MOST_FACTOR` or its inverse."""
    return logarithm.clamp(-math.log(MOST_FACTOR), math.log(MOST_FACTOR)).exp()

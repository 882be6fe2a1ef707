"""Rounding with feedback: each input's weights are rounded in turn, and the rest take over their error.

Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv
2210.17323), equation 2 and algorithm 1: with the Hessian `H = 2 X X^T` of the layer's squared error and the Cholesky factor `U` of its inverse
(upper triangular, `H^-1 = U^T U`), column `j` gives the error `e = (w_j - q_j) / U_jj`, and later columns `k` become `w_k - e U_jk`. Inputs of
large second moments come first, while there are many others to take over their errors.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.grids import TorchGrid
from spaces.quantization.rounding.matrix_form import MatrixForm
from spaces.quantization.rounding.scales import fit_scale
from spaces.quantization.rounding.unit import Unit

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01  # of the mean of the Hessian's diagonal, as in the paper
BLOCK = 128  # columns whose errors are carried on together


@dataclass(frozen=True)
class Gptq(Method):
    """Rounds each layer with feedback; a layer without a matrix form (ConvTranspose, 3-D Conv, weights of more axes) to nearest."""

    name: ClassVar[str] = "gptq"

    def solve(self, unit: Unit) -> None:
        """Rounds the layers of a part."""
        known = unit.quantized
        for layer in unit.layers:
            form = MatrixForm.of(unit.segment.nodes, layer)
            if form is None:
                continue
            moments = form.second_moments(unit)
            fit_scale(unit, form, moments)
            rows, grid = form.rows(unit.floats[layer.name]), form.grid(known.grids[layer.name])
            known.weights[layer.name] = form.weight(with_feedback(rows, moments, grid))


def with_feedback(rows: "Tensor", hessian: "Tensor", grid: TorchGrid, feedback: bool = True) -> "Tensor":
    """Rounds matrices.

    Args:
        rows: `(n_groups, n_out, n_in)`.
        hessian: `(n_groups, n_in, n_in)`, a positive factor of it.
        grid: The grid, with a scale that broadcasts over `rows` and does not vary along inputs.
        feedback: Whether later inputs take over the error; without it the result is the nearest rounding.
    """
    import torch

    if not feedback:
        return grid.quantized(rows)
    order = hessian.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    ordered = hessian.gather(1, order[:, :, None].expand_as(hessian))
    upper = _inverse_factor(ordered.gather(2, order[:, None].expand_as(hessian)).double()).to(rows.dtype)
    columns = order[:, None].expand_as(rows)
    found = _in_order(rows.gather(2, columns), upper, grid)
    return torch.empty_like(rows).scatter_(2, columns, found)


def _in_order(rows: "Tensor", upper: "Tensor", grid: TorchGrid) -> "Tensor":
    import torch

    found, n_in = torch.empty_like(rows), rows.shape[2]
    for start in range(0, n_in, BLOCK):
        stop = min(start + BLOCK, n_in)
        errors = torch.zeros_like(rows[:, :, start:stop])
        for j in range(start, stop):
            column = rows[:, :, j : j + 1]
            found[:, :, j : j + 1] = grid.quantized(column)
            error = (column - found[:, :, j : j + 1]) / upper[:, j : j + 1, j : j + 1]
            rows[:, :, j:stop] -= error * upper[:, j : j + 1, j:stop]
            errors[:, :, j - start : j - start + 1] = error
        rows[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return found


def _inverse_factor(hessian: "Tensor") -> "Tensor":
    """Returns the upper Cholesky factor of the damped Hessian's inverse."""
    import torch

    diagonal = hessian.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True).clamp_min(1e-12)
    damped = hessian + torch.diag_embed(DAMPING * mean + (diagonal == 0) * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)  # type: ignore[no-any-return]

"""Scales of weights by what their rounding does to the layer's output."""

from typing import TYPE_CHECKING

from spaces.quantization.rounding.grids import MOST_FACTOR, TorchGrid
from spaces.quantization.rounding.matrix_form import MatrixForm
from spaces.quantization.rounding.unit import Unit

if TYPE_CHECKING:
    from torch import Tensor

N_FACTORS = 41


def fit_scale(unit: Unit, form: MatrixForm, moments: "Tensor") -> None:
    """Replaces a layer's scales by those of `weighted_scale`, and its weight by the nearest on that grid.

    Args:
        unit: The part.
        form: The layer.
        moments: Second moments of its inputs, `(n_groups, n_in, n_in)`.
    """
    known, name = unit.quantized, form.layer.name
    if known.fixed_scales:
        return
    grid, rows = known.grids[name], form.rows(unit.floats[name])
    scale = weighted_scale(rows, moments.diagonal(dim1=1, dim2=2), form.grid(grid))
    known.grids[name] = grid.with_scale(scale.reshape(grid.scale.shape))
    known.weights[name] = known.grids[name].quantized(unit.floats[name])


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

"""Rounding with feedback: each input's weights are rounded in turn, and the rest take over their error.

Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv
2210.17323), equation 2 and algorithm 1: with the Hessian `H = 2 X X^T` of the layer's squared error and the Cholesky factor `U` of its inverse
(upper triangular, `H^-1 = U^T U`), column `j` gives the error `e = (w_j - q_j) / U_jj`, and later columns `k` become `w_k - e U_jk`. Inputs of
large second moments come first, while there are many others to take over their errors. What is rounded are weights that make up for the errors
of the layers before: see `compensation.py`.

Later integers never change earlier ones there, so a few passes of coordinate descent on the same error follow (QuantEase, Behdin et al. 2023, arXiv
2309.01885, equation 8): each integer in turn becomes the best one given all others, and each scale the best one given the integers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from spaces.models.onnx.torch_graph.graph import Values
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.compensation import Moments, compensated
from spaces.quantization.rounding.grids import MOST_FACTOR, TorchGrid, weighted_scale
from spaces.quantization.rounding.matrix_form import MatrixForm
from spaces.quantization.rounding.unit import Unit

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01  # of the mean of the Hessian's diagonal, as in the paper
BLOCK = 128  # columns whose errors are carried on together


@dataclass(frozen=True)
class Gptq(Method):
    """Rounds each layer with feedback; a layer without a matrix form (ConvTranspose, 3-D Conv, weights of more axes) to nearest.

    Attributes:
        compensate: Whether weights make up for the errors of earlier layers before they are rounded.
        passes: Passes of coordinate descent afterwards.
    """

    name: ClassVar[str] = "gptq"
    compensate: bool = True
    passes: int = 6

    def solve(self, unit: Unit) -> None:
        """Rounds the layers of a part."""
        self.rounded(unit)

    def rounded(self, unit: Unit) -> Values:
        """Rounds the layers of a part and returns what was rounded, by layer name: a layer's weight, or one that makes up for errors."""
        forms = (MatrixForm.of(unit.segment.nodes, layer) for layer in unit.layers)
        return {form.layer.name: self._round(unit, form) for form in forms if form is not None}

    def _round(self, unit: Unit, form: MatrixForm) -> "Tensor":
        """Rounds one layer: its own weights or, where the part's outputs come closer to the float network's then, those that make up for errors."""
        compensates = self.compensate and unit.n_examples > 1
        moments, rows = Moments.of(unit, form, compensates), form.rows(unit.floats[form.layer.name])
        self._round_rows(unit, form, rows, moments.inputs)
        changed = compensated(rows, moments) if compensates else rows
        if changed is rows:
            return form.weight(rows)
        known, name, error = unit.quantized, form.layer.name, unit.error()
        own = known.weights[name], known.grids[name]
        self._round_rows(unit, form, changed, moments.inputs)
        if unit.error() < error:
            return form.weight(changed)
        known.weights[name], known.grids[name] = own
        return form.weight(rows)

    def _round_rows(self, unit: Unit, form: MatrixForm, rows: "Tensor", moments: "Tensor") -> None:
        """Replaces a layer's weight and scales.

        Args:
            unit: The part.
            form: The layer.
            rows: What is rounded, `(n_groups, n_out, n_in)`.
            moments: Second moments of the layer's inputs, `(n_groups, n_in, n_in)`.
        """
        known, name = unit.quantized, form.layer.name
        start = grid = form.grid(known.grids[name])
        if not known.fixed_scales:
            grid = grid.with_scale(weighted_scale(rows, moments.diagonal(dim1=1, dim2=2), grid))
        found = with_feedback(rows, moments, grid)
        limits = None if known.fixed_scales else (start.scale / MOST_FACTOR, start.scale * MOST_FACTOR)
        found, grid = descended(rows, found, moments, grid, self.passes, limits)
        known.weights[name] = form.weight(found)
        known.grids[name] = known.grids[name].with_scale(grid.scale.reshape(known.grids[name].scale.shape))


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


def descended(
    rows: "Tensor",
    found: "Tensor",
    hessian: "Tensor",
    grid: TorchGrid,
    passes: int,
    limits: "tuple[Tensor, Tensor] | None",
) -> "tuple[Tensor, TorchGrid]":
    """Returns weights of less error `(V - W) H (V - W)^T`, with the damped Hessian, and their grid.

    Args:
        rows: `W`, `(n_groups, n_out, n_in)`.
        found: `V`, on the grid, same shape.
        hessian: `(n_groups, n_in, n_in)`, a positive factor of it.
        grid: The grid.
        passes: Passes over all integers.
        limits: Least and largest scale, in the shape of the grid's; None keeps the scales.
    """
    damped, steps = _damped(hessian), (found / grid.scale).round()
    low, high = grid.low - grid.zero, grid.high - grid.zero
    for _ in range(passes):
        if limits is not None:
            grid = grid.with_scale(_best_scale(rows, steps, damped, grid.scale).clamp(*limits))
        slope = (steps * grid.scale - rows) @ damped
        for j in range(rows.shape[2]):
            column, of_others = steps[:, :, j : j + 1], damped[:, j : j + 1]
            best = column - slope[:, :, j : j + 1] / (of_others[:, :, j : j + 1] * grid.scale)
            moved = best.round().clamp(low, high) - column
            slope += moved * grid.scale * of_others
            column += moved
    return steps * grid.scale, grid


def _best_scale(rows: "Tensor", steps: "Tensor", hessian: "Tensor", scale: "Tensor") -> "Tensor":
    """Returns the scales of least error of integers, in the shape of `scale`; the present one where all integers are 0."""
    import torch

    weighted = steps @ hessian
    parts = [(weighted * values).sum(2, keepdim=True) for values in (rows, steps)]
    along, square = parts if scale.ndim else [part.sum() for part in parts]
    return torch.where((square > 0) & (along > 0), along / square.clamp_min(1e-30), scale)


def _inverse_factor(hessian: "Tensor") -> "Tensor":
    """Returns the upper Cholesky factor of the damped Hessian's inverse."""
    import torch

    inverse = torch.cholesky_inverse(torch.linalg.cholesky(_damped(hessian)))
    return torch.linalg.cholesky(inverse, upper=True)  # type: ignore[no-any-return]


def _damped(hessian: "Tensor") -> "Tensor":
    import torch

    diagonal = hessian.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True).clamp_min(1e-12)
    return hessian + torch.diag_embed(DAMPING * mean + (diagonal == 0) * mean)

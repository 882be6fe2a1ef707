"""Rounding with feedback: each input's weights are rounded in turn, and the rest take over their error.

Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (arXiv
2210.17323), equation 2 and algorithm 1: with the Hessian `H = 2 X X^T` of the layer's squared error and the Cholesky factor `U` of its inverse
(upper triangular, `H^-1 = U^T U`), column `j` gives the error `e = (w_j - q_j) / U_jj`, and later columns `k` become `w_k - e U_jk`. A
convolution is the product with the unfolded patches of its input, each of its groups a product of its own.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from spaces.models.layers import Layer
from spaces.models.onnx.torch_graph.graph import Node, Values
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.grids import TorchGrid
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
        for layer in unit.layers:
            form = _Form.of(unit, layer)
            if form is None:
                continue
            hessian = form.hessian(unit)
            rows = form.rows(unit.floats[layer.name])
            grid = form.grid(unit.quantized.grids[layer.name])
            unit.quantized.weights[layer.name] = form.weight(with_feedback(rows, hessian, grid))


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
    upper = _inverse_factor(hessian.double()).to(rows.dtype)
    rows, found = rows.clone(), torch.empty_like(rows)
    n_in = rows.shape[2]
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


@dataclass(frozen=True)
class _Form:
    """A layer as a product of matrices."""

    layer: Layer
    node: Node
    shape: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, unit: Unit, layer: Layer) -> "_Form | None":
        node = next(n for n in unit.segment.nodes if n.name == layer.node)
        shape = tuple(layer.weight_shape)
        if layer.op_type == "Conv" and len(shape) in (3, 4):
            return cls(layer, node, shape, node.attributes.get("group", 1))
        is_matrix = (
            layer.op_type in ("Gemm", "MatMul") and len(shape) == 2 and not node.attributes.get("transA")
        )
        return cls(layer, node, shape, 1) if is_matrix else None

    def rows(self, weight: "Tensor") -> "Tensor":
        """Returns a weight as `(n_groups, n_out, n_in)`."""
        matrix = weight.flatten(1) if self.layer.op_type == "Conv" else weight
        matrix = matrix if self.layer.weight_axis_out == 0 else matrix.T
        return matrix.reshape(self.groups, -1, matrix.shape[1])

    def weight(self, rows: "Tensor") -> "Tensor":
        """Returns rows in the weight's own shape."""
        matrix = rows.reshape(-1, rows.shape[2])
        matrix = matrix if self.layer.weight_axis_out == 0 else matrix.T.contiguous()
        return matrix.reshape(self.shape)

    def grid(self, grid: TorchGrid) -> TorchGrid:
        """Returns the grid with a scale for rows."""
        if grid.axis is None:
            return grid
        shape = (self.groups, -1, 1)
        return replace(grid, scale=grid.scale.reshape(shape), zero=grid.zero.reshape(shape))

    def hessian(self, unit: Unit) -> "Tensor":
        """Returns the sum of the products of the layer's inputs, `(n_groups, n_in, n_in)`."""
        total: Any = 0
        for batch in unit.batches(unit.inputs):
            columns = self._columns(self._input(unit, batch))
            total = total + columns @ columns.transpose(1, 2)
        return total  # type: ignore[no-any-return]

    def _input(self, unit: Unit, batch: Values) -> "Tensor":
        """Returns what the layer reads in a batch."""
        import torch

        name = self.node.inputs[0]
        with torch.no_grad():
            value = batch[name] if name in batch else unit.run(batch)[name]
            grid = unit.quantized.reads(self.node, 0)
            return value if grid is None else grid.quantized(value)

    def _columns(self, x: "Tensor") -> "Tensor":
        if self.layer.op_type != "Conv":
            return x.reshape(-1, x.shape[-1]).T[None]
        from spaces.models.onnx.torch_graph.operators import unfolded

        patches = unfolded(self.node.attributes, x, list(self.shape[2:]))  # (b, c * k, places)
        n_in = self.shape[1] * patches.shape[1] // x.shape[1]
        grouped = patches.reshape(len(patches), self.groups, n_in, -1)
        return grouped.permute(1, 2, 0, 3).reshape(self.groups, n_in, -1)

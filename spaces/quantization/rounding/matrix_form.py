"""Layers as products of matrices."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spaces.models.layers import Layer
from spaces.models.onnx.torch_graph.graph import Node, Values
from spaces.quantization.rounding.grids import TorchGrid
from spaces.quantization.rounding.unit import Unit

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MatrixForm:
    """A layer as a product of matrices: a convolution is one with the unfolded patches of its input, each of its groups one of its own."""

    layer: Layer
    node: Node
    shape: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, nodes: Iterable[Node], layer: Layer) -> "MatrixForm | None":
        """Returns a layer's form; None of ConvTranspose, 3-D Conv and weights of more than two axes."""
        node = next(n for n in nodes if n.name == layer.node)
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

    def products(self, x: "Tensor") -> "Tensor":
        """Returns the sum of the products of inputs, `(n_groups, n_in, n_in)`, of the layer's input tensor."""
        columns = self.columns(x)
        return columns @ columns.transpose(1, 2)

    def read(self, unit: Unit, batch: Values) -> "Tensor":
        """Returns what the layer reads in the quantized network, of a batch of what the part reads."""
        import torch

        name = self.node.inputs[0]
        with torch.no_grad():
            value = batch[name] if name in batch else unit.run(batch)[name]
            grid = unit.quantized.reads(self.node, 0)
            return value if grid is None else grid.quantized(value)

    def read_in_float(self, unit: Unit, batch: Values) -> "Tensor":
        """Returns what the layer reads in the float network, of a batch of what the part reads there."""
        import torch

        name = self.node.inputs[0]
        with torch.no_grad():
            if name in batch:
                return batch[name]
            return unit.graph.run(unit.segment.nodes, {**unit.static, **batch})[name]

    def outputs(self, y: "Tensor") -> "Tensor":
        """Returns a tensor of the output's shape as `(n_groups, n_out, n)`, in the order of `columns`."""
        if self.layer.op_type != "Conv":
            return y.reshape(-1, y.shape[-1]).T[None]
        grouped = y.reshape(len(y), self.groups, y.shape[1] // self.groups, -1)
        return grouped.permute(1, 2, 0, 3).reshape(self.groups, grouped.shape[2], -1)

    def columns(self, x: "Tensor") -> "Tensor":
        """Returns what a row of weights is multiplied with, `(n_groups, n_in, n)`, of the layer's input tensor."""
        if self.layer.op_type != "Conv":
            return x.reshape(-1, x.shape[-1]).T[None]
        from spaces.models.onnx.torch_graph.operators import unfolded

        patches = unfolded(self.node.attributes, x, list(self.shape[2:]))  # (b, c * k, places)
        n_in = self.shape[1] * patches.shape[1] // x.shape[1]
        grouped = patches.reshape(len(patches), self.groups, n_in, -1)
        return grouped.permute(1, 2, 0, 3).reshape(self.groups, n_in, -1)

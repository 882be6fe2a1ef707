"""One part of a network while it is rounded: its layers, their grids, and the values of all calibration examples around it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spaces.models.layers import Layer
from spaces.models.onnx.torch_graph.graph import Node, TorchGraph, Values
from spaces.quantization.rounding.grids import TorchGrid
from spaces.quantization.rounding.segments import Segment

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64  # examples that run at once without gradients
NARROW_BELOW = 8  # bits

Tables = tuple[Values, dict[str, TorchGrid], Values, dict[str, TorchGrid]]
Quantize = Callable[[TorchGrid, "Tensor", str], "Tensor"]
"""`(grid, values, tensor name)` -> the values on the grid."""


@dataclass
class Quantized:
    """The quantized network as far as it is known: of layers that are not rounded yet, the nearest rounding.

    Attributes:
        weights: Weights by layer name, on their grids.
        grids: Their grids.
        biases: Biases by name that replace the network's.
        activations: Grids of activations by tensor name.
        layers_only: Whether only layers read activations from their grids; else all nodes do.
        layer_nodes: Names of the nodes of quantized layers.
        fixed_scales: Whether the scheme's scales of weights cannot take any value, as powers of two.
    """

    weights: Values
    grids: dict[str, TorchGrid]
    biases: Values
    activations: dict[str, TorchGrid]
    layers_only: bool
    layer_nodes: frozenset[str]
    fixed_scales: bool = False

    def tables(self) -> Tables:
        """Returns what a method may change, to go back to it."""
        return dict(self.weights), dict(self.grids), dict(self.biases), dict(self.activations)

    def restore(self, tables: Tables) -> None:
        """Goes back to what `tables` returned."""
        self.weights, self.grids, self.biases, self.activations = tables

    def reads(self, node: Node, position: int) -> TorchGrid | None:
        """Returns the grid from which a node reads one of its inputs; None for float."""
        if self.layers_only and (node.name not in self.layer_nodes or position):
            return None
        return self.activations.get(node.inputs[position])


@dataclass
class Unit:
    """What a method of rounding gets.

    Attributes:
        graph: The network.
        segment: The part.
        layers: Its layers that are to be rounded, each weight once.
        floats: Weight by layer name, float.
        quantized: The quantized network; a method replaces weights, grids, biases and activations in it.
        inputs: What the part reads in the quantized network, by tensor name, `(n, ...)`.
        float_inputs: The same in the float network.
        targets: What it makes of them in the float network.
        static: Values that do not depend on the examples.
        seed: Seed of random numbers.
    """

    graph: TorchGraph
    segment: Segment
    layers: tuple[Layer, ...]
    floats: Values
    quantized: Quantized
    inputs: Values
    float_inputs: Values
    targets: Values
    static: Mapping[str, "Tensor"] = field(default_factory=dict)
    seed: int = 0

    @property
    def n_examples(self) -> int:
        """Number of calibration examples."""
        return len(next(iter((self.inputs or self.targets).values())))

    def run(
        self,
        inputs: Mapping[str, "Tensor"],
        weights: Mapping[str, "Tensor"] | None = None,
        quantize: Quantize | None = None,
    ) -> Values:
        """Runs the part as it is in the quantized network.

        Args:
            inputs: What it reads.
            weights: Weights and biases that replace the quantized network's.
            quantize: Replaces `TorchGrid.quantized` for activations.

        Returns:
            All that its nodes make.
        """
        known = self.quantized

        def read(node: Node, position: int, value: "Tensor") -> "Tensor":
            grid = known.reads(node, position)
            if grid is None:
                return value
            return grid.quantized(value) if quantize is None else quantize(grid, value, node.inputs[position])

        constants = {**known.weights, **known.biases, **(weights or {})}
        return self.graph.run(self.segment.nodes, {**self.static, **inputs}, constants, read)

    def narrow_activations(self) -> list[str]:
        """Returns the names of the activations of fewer than `NARROW_BELOW` bits that the part reads, whose step sizes are learned."""
        known = self.quantized
        return [
            node.inputs[i]
            for node in self.segment.nodes
            for i in range(len(node.inputs))
            if (grid := known.reads(node, i)) is not None and grid.high - grid.low < 2**NARROW_BELOW - 1
        ]

    def learnable_biases(self) -> Values:
        """Returns a copy of each layer's bias, by its name, that takes gradients."""
        known = self.quantized.biases
        return {
            x.bias: known.get(x.bias, self.floats[x.bias]).clone().requires_grad_()
            for x in self.layers
            if x.bias and x.bias in self.floats
        }

    def batches(self, values: Mapping[str, "Tensor"]) -> Iterator[Values]:
        """Yields the values batch by batch."""
        for start in range(0, self.n_examples, BATCH):
            yield {name: value[start : start + BATCH] for name, value in values.items()}

    def error(self) -> float:
        """Returns the mean squared error of the part's outputs, relative to the mean square of its targets."""
        import torch

        total, scale = 0.0, 0.0
        with torch.no_grad():
            for inputs, targets in zip(self.batches(self.inputs), self.batches(self.targets), strict=True):
                made = self.run(inputs)
                total += sum(float(((made[t] - target) ** 2).sum()) for t, target in targets.items())
                scale += sum(float((target**2).sum()) for target in targets.values())
        return total / max(scale, 1e-30)

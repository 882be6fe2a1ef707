"""A function in a float graph, and what its recognition asks of the graph."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class FloatFunction:
    """A function of one activation, in one node or several.

    Attributes:
        kind: `Softmax`, `Gelu` or `LayerNormalization`.
        nodes: Names of its nodes; the last one writes the result.
        reader: Name of a node that reads the activation, and the position of the activation among its inputs.
        input: Name of the activation.
        axes: Axes that are normalized.
        size: Number of values that a layer normalization normalizes together.
        epsilon: What a layer normalization adds to the variance.
        weight: Name of its factors' initializer; None without.
        bias: Name of its biases' initializer; None without.
    """

    kind: str
    nodes: tuple[str, ...]
    reader: tuple[str, int]
    input: str
    axes: tuple[int, ...] = ()
    size: int = 0
    epsilon: float = 0.0
    weight: str | None = None
    bias: str | None = None

    @property
    def name(self) -> str:
        """Name of the node that writes the result."""
        return self.nodes[-1]


class Index:
    """Producers, readers, constants and shapes of a graph's tensors."""

    def __init__(self, proto: "onnx.ModelProto") -> None:
        graph = proto.graph
        self.nodes = list(graph.node)
        self.producers = {output: node for node in self.nodes for output in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self._readers[name].append(node)
        self._results = {value.name for value in graph.output}
        self._initializers = {i.name: i for i in graph.initializer}
        self._types = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.input, *graph.output)}

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Returns the values of an initializer or of a Constant node; None for what is computed."""
        from onnx import numpy_helper

        node = self.producers.get(name)
        if node is not None and node.op_type == "Constant":
            return next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
        found = self._initializers.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def number(self, name: str) -> float | None:
        """Returns the value of a constant with one element; None for others."""
        values = self.constant(name)
        return None if values is None or values.size != 1 else float(values.astype(np.float64).item())

    def made_by(self, name: str, *operators: str) -> "onnx.NodeProto | None":
        """Returns the node that writes a tensor, if it has one of these standard operators."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in operators and node.domain in STANDARD else None

    def only_reader(self, name: str) -> "onnx.NodeProto | None":
        """Returns the node that alone reads a tensor; None if there are more or none, or the tensor is the graph's output."""
        readers = {id(node): node for node in self._readers[name]}
        return next(iter(readers.values())) if len(readers) == 1 and name not in self._results else None

    def is_closed(self, nodes: Iterable["onnx.NodeProto"], output: str) -> bool:
        """Whether no others read what the nodes write, except the output."""
        inside = {id(node): node for node in nodes}
        written = {name for node in inside.values() for name in node.output if name} - {output}
        readers = (id(node) for name in written for node in self._readers[name])
        return written.isdisjoint(self._results) and inside.keys() >= set(readers)

    def in_order(self, nodes: Iterable["onnx.NodeProto"]) -> list["onnx.NodeProto"]:
        """Returns the nodes, each once, in the graph's order."""
        inside = {id(node) for node in nodes}
        return [node for node in self.nodes if id(node) in inside]

    def is_float32(self, name: str) -> bool:
        """Whether a tensor is known to be float32."""
        from onnx import TensorProto

        return name in self._types and self._types[name].elem_type == TensorProto.FLOAT

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Returns the sizes of a tensor's axes, 0 for those that vary; None if the number of axes is unknown."""
        found = self._types.get(name)
        if found is None or not found.HasField("shape"):
            return None
        return tuple(int(dim.dim_value) for dim in found.shape.dim)


def position_of(node: "onnx.NodeProto", name: str) -> int:
    """Returns the position of a tensor among a node's inputs."""
    return list(node.input).index(name)

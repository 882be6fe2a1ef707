"""The fused kernels that a runtime executes for an ONNX model, with their MACs, bytes and shapes."""

from evaluators.cost.graph.kernel import Kernel
from evaluators.cost.graph.op_graph import Fusion, OpGraph, op_graph
from evaluators.cost.graph.operators.geometry import Geometry

__all__ = ["Fusion", "Geometry", "Kernel", "OpGraph", "op_graph"]

"""Expands the fused layers of a file that onnxruntime has optimized: FusedConv, FusedGemm and FusedMatMul.

Quantizers know only the operators that these were fused from.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spaces.models.onnx.graph import array_of, fresh_name, new_initializer

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_DOMAIN = "com.microsoft"
_PLAIN = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}
# Activations of onnxruntime's fused operators -> attributes that their parameters become.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "": (),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
}
_PARAMETERS = ("activation_alpha", "activation_beta", "activation_gamma")  # of FusedGemm
_UNUSUAL = ("transA", "transBatchA", "transBatchB")  # of FusedMatMul


def expand_fused(proto: "onnx.ModelProto") -> "onnx.ModelProto":
    """Returns the model with each fused layer of the main graph as layer and activation.

    A node with an unusual activation, or a FusedMatMul that transposes an activation, stays as it is.

    Args:
        proto: A checked ONNX model.
    """
    import onnx_ir as ir

    if not any(node.op_type in _PLAIN and node.domain == _DOMAIN for node in proto.graph.node):
        return proto
    model = ir.from_proto(proto)
    for node in model.graph:
        if node.domain != _DOMAIN or node.op_type not in _PLAIN:
            continue
        parts = _matmul(model.graph, node) if node.op_type == "FusedMatMul" else _layer(node)
        if parts:
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], parts, node.outputs, parts[-1].outputs
            )
    return ir.to_proto(model)


def _layer(node: "ir.Node") -> list["ir.Node"]:
    """Returns Conv or Gemm, the addition of FusedConv's fourth input, and the activation; nothing if unknown."""
    import onnx_ir as ir

    activation = node.attributes.get_string("activation", "") or ""
    if activation not in _ACTIVATIONS:
        return []
    own = [value for name, value in node.attributes.items() if not name.startswith("activation")]
    parts = [ir.Node("", _PLAIN[node.op_type], node.inputs[:3], own, name=node.name)]
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        parts.append(ir.node("Add", [parts[-1].outputs[0], node.inputs[3]]))
    if activation:
        given = dict(zip(_ACTIVATIONS[activation], _parameters(node), strict=False))
        parts.append(ir.node(activation, [parts[-1].outputs[0]], given))
    return parts


def _parameters(node: "ir.Node") -> Sequence[float]:
    if node.op_type == "FusedConv":
        return node.attributes.get_floats("activation_params", ()) or ()
    return [node.attributes.get_float(name, 0.0) for name in _PARAMETERS if name in node.attributes]


def _matmul(graph: "ir.Graph", node: "ir.Node") -> list["ir.Node"]:
    """Returns the transposition of a constant weight, MatMul, and a factor; nothing if it needs more."""
    import onnx_ir as ir

    alpha = node.attributes.get_float("alpha", 1.0)
    transposed, weight = node.attributes.get_int("transB", 0), array_of(node.inputs[1])
    if any(node.attributes.get_int(name, 0) for name in _UNUSUAL):
        return []
    parts, second = list["ir.Node"](), node.inputs[1]
    if transposed:
        if weight is None or weight.ndim < 2:
            return []
        axes = [*range(weight.ndim - 2), weight.ndim - 1, weight.ndim - 2]
        parts.append(ir.node("Transpose", [second], {"perm": axes}))
        second = parts[-1].outputs[0]
    parts.append(ir.node("MatMul", [node.inputs[0], second], name=node.name))
    if alpha != 1:
        name = fresh_name(graph, f"{node.outputs[0].name}_factor")
        factor = new_initializer(graph, name, np.asarray(alpha, np.float32))
        parts.append(ir.node("Mul", [parts[-1].outputs[0], factor]))
    return parts

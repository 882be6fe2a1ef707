"""Why a node stays float in every candidate: decided once per network, before any candidate is built."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from spaces.models.layers import Layer

if TYPE_CHECKING:
    import onnx

MOST_NAMES = 8  # in one note

CONSTANT_OPERAND = "one operand is a constant, and rounding it would cost accuracy and save nothing"
CONSTANT_FIRST = "its weight is the first operand, and kernels take a weight as the second"
NO_QOPERATOR = "with format=qoperator, since onnxruntime has no such ConvTranspose"
NO_FLOAT_OPERAND = "one operand is no float32 activation"
TWO_ACTIVATIONS = "both operands are activations, which quantize.activation_matmuls=true quantizes"
TABLE = "its table is looked up, not multiplied with, and stays float32"
WEIGHTS_ONLY = "its weights are stored as integers and computed with in float, since onnxruntime has no {op} between quantized activations"


def layer_problem(
    layer: Layer, node: "onnx.NodeProto", initializers: Mapping[str, "onnx.TensorProto"]
) -> str | None:
    """Returns the reason why a layer's arithmetic has no integer form here; None if it has one.

    Args:
        layer: The layer.
        node: Its node.
        initializers: The model's initializers by name.
    """
    return weight_problem(layer, initializers[layer.name]) or _bias_problem(layer, node, initializers)


def weight_problem(layer: Layer, weight: "onnx.TensorProto") -> str | None:
    """Returns the reason why a layer's weight cannot be stored as integers; None if it can."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    if weight.data_type != TensorProto.FLOAT:
        return "its weight is not float32"
    if 0 in layer.weight_shape:
        return "its weight is empty"
    if layer.op_type == "MatMul" and len(layer.weight_shape) < 2:
        return (
            f"integer kernels take a weight with 2 or more axes, and its weight has {len(layer.weight_shape)}"
        )
    if not np.isfinite(numpy_helper.to_array(weight)).all():
        return "its weight is not finite"
    return None


def _bias_problem(
    layer: Layer, node: "onnx.NodeProto", initializers: Mapping[str, "onnx.TensorProto"]
) -> str | None:
    from onnx import TensorProto

    if layer.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute):
        return "its input is transposed (transA)"
    if layer.bias is None:
        return None
    bias = initializers.get(layer.bias)
    if bias is None:
        return "its bias is computed"
    if bias.data_type != TensorProto.FLOAT:
        return "its bias is not float32"
    if tuple(bias.dims) != (layer.n_outputs,):
        return f"its bias has the shape {list(bias.dims)}, not one number per output ({layer.n_outputs})"
    return None


def notes(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Returns one sentence per reason, with the nodes that it concerns.

    Args:
        reasons: Node name to the reason why it stays float.
    """
    by_reason: dict[str, list[str]] = {}
    for node, reason in reasons.items():
        by_reason.setdefault(reason, []).append(node)
    return tuple(f"Left float: {_listed(nodes)}: {reason}" for reason, nodes in by_reason.items())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")

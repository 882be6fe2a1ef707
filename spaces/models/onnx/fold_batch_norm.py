"""Folds BatchNormalization into the Conv, ConvTranspose or Gemm before it (Jacob et al. 2017, arXiv 1712.05877, eq. 14)."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.graph import (
    attribute,
    drop_unused,
    fresh_name,
    initializer_arrays,
    is_op,
    replace_all,
    set_initializer,
    uses,
)

if TYPE_CHECKING:
    import onnx

Arrays = dict[str, NDArray[Any]]


def fold_batch_norm(proto: "onnx.ModelProto") -> int:
    """Folds, in place, every BatchNormalization that only scales and shifts what one layer yields.

    With s = gamma / sqrt(var + eps): weight *= s along the output axis, bias = (bias - mean) * s + beta.
    The weight keeps its name. A BatchNormalization stays where the layer's output is read elsewhere, where
    the weight is shared between layers, or where it is in training mode.

    Args:
        proto: An ONNX model whose constants are initializers.

    Returns:
        How many were folded.
    """
    graph = proto.graph
    constants, counts = initializer_arrays(graph), uses(graph)
    makers = {name: node for node in graph.node for name in node.output}
    folded = 0
    for norm in graph.node:
        layer = makers.get(norm.input[0]) if is_op(norm, "BatchNormalization") else None
        if layer is None or not _foldable(norm, layer, constants, counts):
            continue
        _fold(graph, norm, layer, constants, counts)
        layer.output[0] = norm.output[0]
        del norm.output[:]
        folded += 1
    replace_all(graph.node, [n for n in graph.node if n.output])
    drop_unused(graph)
    return folded


def _foldable(
    norm: "onnx.NodeProto", layer: "onnx.NodeProto", constants: Arrays, counts: dict[str, int]
) -> bool:
    inference = not attribute(norm, "training_mode", 0) and not any(norm.output[1:])
    if not inference or not is_op(layer, "Conv", "ConvTranspose", "Gemm"):
        return False
    known = all(name in constants for name in (*norm.input[1:], *layer.input[1:]) if name)
    alone = counts[layer.output[0]] == 1 and counts[layer.input[1]] == 1
    return known and alone and _bias_fits(layer, constants, constants[norm.input[1]].size)


def _bias_fits(layer: "onnx.NodeProto", constants: Arrays, n_channels: int) -> bool:
    """A Gemm's bias may be a matrix with other values for every row; that is no bias per channel."""
    bias = constants[layer.input[2]] if _has_bias(layer) else None
    return bias is None or bias.size == 1 or bias.shape[-1] == bias.size == n_channels


def _has_bias(layer: "onnx.NodeProto") -> bool:
    return len(layer.input) > 2 and bool(layer.input[2])


def _fold(
    graph: "onnx.GraphProto",
    norm: "onnx.NodeProto",
    layer: "onnx.NodeProto",
    constants: Arrays,
    counts: dict[str, int],
) -> None:
    gamma, beta, mean, variance = (constants[n].astype(np.float64) for n in norm.input[1:5])
    scale = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))  # (n_channels,)
    weight = constants[layer.input[1]]
    old = constants[layer.input[2]].astype(np.float64).reshape(-1) if _has_bias(layer) else np.zeros(1)
    if layer.op_type == "Gemm":
        old = old * attribute(layer, "beta", 1.0)
        _reset_beta(layer)
    bias = (old - mean) * scale + beta
    name = _bias_name(graph, layer, counts)
    set_initializer(graph, layer.input[1], _scaled(weight, scale, layer).astype(weight.dtype))
    set_initializer(graph, name, bias.astype(weight.dtype))
    constants[name] = bias
    del layer.input[2:]
    layer.input.append(name)


def _scaled(weight: NDArray[Any], scale: NDArray[np.float64], layer: "onnx.NodeProto") -> NDArray[np.float64]:
    """Multiplies each output channel's weights by its scale, whatever the operator's layout."""
    if layer.op_type == "Conv":  # (out, in / groups, *kernel)
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if layer.op_type == "Gemm":
        return weight * (scale[:, None] if attribute(layer, "transB", 0) else scale)
    groups = attribute(layer, "group", 1)  # ConvTranspose: (in, out / groups, *kernel)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    factors = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return (grouped * factors).reshape(weight.shape)


def _bias_name(graph: "onnx.GraphProto", layer: "onnx.NodeProto", counts: dict[str, int]) -> str:
    """Returns the old bias's name if it is this layer's alone, else one that goes with the weight's."""
    if _has_bias(layer) and counts[layer.input[2]] == 1:
        return str(layer.input[2])
    weight = str(layer.input[1])
    stem = weight.removesuffix("weight")
    return fresh_name(graph, f"{stem}bias" if stem != weight else f"{weight}_bias")


def _reset_beta(layer: "onnx.NodeProto") -> None:
    for a in layer.attribute:
        if a.name == "beta":
            a.f = 1.0

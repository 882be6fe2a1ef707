"""Folds BatchNormalization into the layer before it (Jacob et al. 2017, arXiv 1712.05877, eq. 14)."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.graph import array_of, fresh_name, is_op, n_readers, new_initializer, store

if TYPE_CHECKING:
    import onnx_ir as ir


def fold_batch_norm(model: "ir.Model") -> int:
    """Folds, in place, every BatchNormalization after a Conv, ConvTranspose or Gemm that nothing else reads.

    With s = gamma / sqrt(var + eps): weight *= s along the output axis, bias = (bias - mean) * s + beta.
    The weight keeps its name. A BatchNormalization stays where the layer's output is read elsewhere, where
    the weight is shared between layers, or where it is in training mode. onnxscript's rewrite rules are not
    used, because they rename the weight and compute in its precision; this pass computes in float64.

    Args:
        model: A model whose constants are initializers.

    Returns:
        The number of folded nodes.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    folded = 0
    for norm in model.graph:
        layer = norm.inputs[0].producer() if is_op(norm, "BatchNormalization") and norm.inputs[0] else None
        if layer is None or not _foldable(norm, layer):
            continue
        _fold(model.graph, norm, layer)
        norm.outputs[0].replace_all_uses_with(layer.outputs[0], replace_graph_outputs=True)
        layer.outputs[0].name = norm.outputs[0].name
        model.graph.remove(norm, safe=True)
        folded += 1
    RemoveUnusedNodesPass()(model)
    return folded


def _foldable(norm: "ir.Node", layer: "ir.Node") -> bool:
    unread = not any(n_readers(value) for value in norm.outputs[1:])
    if norm.attributes.get_int("training_mode", 0) or not unread:
        return False
    if not is_op(layer, "Conv", "ConvTranspose", "Gemm"):
        return False
    known = all(v.is_initializer() for v in (*norm.inputs[1:], *layer.inputs[1:]) if v is not None)
    weight = layer.inputs[1]
    alone = n_readers(layer.outputs[0]) == 1 and weight is not None and n_readers(weight) == 1
    return known and alone and _bias_fits(layer, _float64(norm.inputs[1]).size)


def _bias_fits(layer: "ir.Node", n_channels: int) -> bool:
    """Whether the bias is a scalar or per channel: a Gemm's may be a matrix with different rows."""
    bias = array_of(_bias(layer))
    return bias is None or bias.size == 1 or bias.shape[-1] == bias.size == n_channels


def _bias(layer: "ir.Node") -> "ir.Value | None":
    return layer.inputs[2] if len(layer.inputs) > 2 else None


def _float64(value: "ir.Value | None") -> NDArray[np.float64]:
    array = array_of(value)
    assert array is not None
    return array.astype(np.float64)


def _fold(graph: "ir.Graph", norm: "ir.Node", layer: "ir.Node") -> None:
    gamma, beta, mean, variance = map(_float64, norm.inputs[1:5])
    scale = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))  # (n_channels,)
    old = np.zeros(1) if _bias(layer) is None else _float64(_bias(layer)).reshape(-1)
    if layer.op_type == "Gemm":
        old = old * layer.attributes.get_float("beta", 1.0)
        layer.attributes.pop("beta", None)
    weight, value = array_of(layer.inputs[1]), layer.inputs[1]
    assert weight is not None
    assert value is not None
    store(value, _scaled(weight, scale, layer).astype(weight.dtype))
    _set_bias(graph, layer, ((old - mean) * scale + beta).astype(weight.dtype))


def _set_bias(graph: "ir.Graph", layer: "ir.Node", array: NDArray[Any]) -> None:
    """Replaces the bias if only this layer reads it; else adds a new one, named after the weight."""
    bias = _bias(layer)
    if bias is not None and n_readers(bias) == 1:
        store(bias, array)
        return
    weight = str(layer.inputs[1].name if layer.inputs[1] else "")
    stem = weight.removesuffix("weight")
    name = fresh_name(graph, f"{stem}bias" if stem != weight else f"{weight}_bias")
    layer.resize_inputs(3)
    layer.replace_input_with(2, new_initializer(graph, name, array))


def _scaled(weight: NDArray[Any], scale: NDArray[np.float64], layer: "ir.Node") -> NDArray[np.float64]:
    """Multiplies each output channel's weights by its scale, whatever the operator's layout."""
    if layer.op_type == "Conv":  # (out, in / groups, *kernel)
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if layer.op_type == "Gemm":
        return weight * (scale[:, None] if layer.attributes.get_int("transB", 0) else scale)
    groups = layer.attributes.get_int("group", 1)  # ConvTranspose: (in, out / groups, *kernel)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    factors = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return (grouped * factors).reshape(weight.shape)

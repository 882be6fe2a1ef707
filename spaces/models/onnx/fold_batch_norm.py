"""Folds BatchNormalization into the layer before it, or the linear layer behind it (Jacob et al. 2017, arXiv 1712.05877, eq. 14)."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.graph import array_of, fresh_name, is_op, n_readers, new_initializer, store

if TYPE_CHECKING:
    import onnx_ir as ir


def fold_batch_norm(model: "ir.Model") -> int:
    """Folds, in place, every BatchNormalization between layers that nothing else reads.

    After a Conv, ConvTranspose or Gemm, with s = gamma / sqrt(var + eps): weight *= s along the output axis, bias = (bias -
    mean) * s + beta. Else before a Gemm: bias += weight (beta - mean * s), weight *= s along the input axis.
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
            folded += _fold_forward(model.graph, norm)
            continue
        _fold(model.graph, norm, layer)
        norm.outputs[0].replace_all_uses_with(layer.outputs[0], replace_graph_outputs=True)
        layer.outputs[0].name = norm.outputs[0].name
        model.graph.remove(norm, safe=True)
        folded += 1
    RemoveUnusedNodesPass()(model)
    return folded


def _foldable(norm: "ir.Node", layer: "ir.Node") -> bool:
    if not is_op(layer, "Conv", "ConvTranspose", "Gemm") or n_readers(layer.outputs[0]) != 1:
        return False
    return _alone(norm, layer) and _bias_fits(layer, _float64(norm.inputs[1]).size)


def _alone(norm: "ir.Node", layer: "ir.Node") -> bool:
    """Whether all parameters of both are known, and nothing else reads the layer's weight or the normalisation's statistics."""
    unread = not any(n_readers(value) for value in norm.outputs[1:])
    if norm.attributes.get_int("training_mode", 0) or not unread:
        return False
    weight = layer.inputs[1]
    known = all(v.is_initializer() for v in (*norm.inputs[1:], *layer.inputs[1:]) if v is not None)
    return known and weight is not None and n_readers(weight) == 1


def _fold_forward(graph: "ir.Graph", norm: "ir.Node") -> bool:
    """Folds a BatchNormalization into the Gemm that alone reads it; returns whether there is one."""
    uses = list(norm.outputs[0].uses()) if is_op(norm, "BatchNormalization") else []
    layer = uses[0].node if len(uses) == 1 and not norm.outputs[0].is_graph_output() else None
    if (
        layer is None
        or not is_op(layer, "Gemm")
        or layer.inputs[0] is not norm.outputs[0]
        or not _alone(norm, layer)
    ):
        return False
    if layer.attributes.get_int("transA", 0) or not _bias_fits(layer, _n_outputs(layer)):
        return False
    scale, shift = _affine(norm)
    weight = array_of(layer.inputs[1])
    assert weight is not None
    is_transposed = layer.attributes.get_int("transB", 0)  # (n_out, n_in)
    added = layer.attributes.get_float("alpha", 1.0) * shift @ (weight.T if is_transposed else weight)
    old = _old_bias(layer)
    _store(layer, weight * (scale if is_transposed else scale[:, None]))
    _set_bias(graph, layer, (old + added).astype(weight.dtype))
    layer.replace_input_with(0, norm.inputs[0])
    graph.remove(norm, safe=True)
    return True


def _n_outputs(layer: "ir.Node") -> int:
    return int(_float64(layer.inputs[1]).shape[0 if layer.attributes.get_int("transB", 0) else 1])


def _affine(norm: "ir.Node") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the factors and offsets of the channels."""
    gamma, beta, mean, variance = map(_float64, norm.inputs[1:5])
    scale = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))  # (n_channels,)
    return scale, beta - mean * scale


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
    scale, shift = _affine(norm)
    old, weight = _old_bias(layer), array_of(layer.inputs[1])
    assert weight is not None
    _store(layer, _scaled(weight, scale, layer))
    _set_bias(graph, layer, (old * scale + shift).astype(weight.dtype))


def _old_bias(layer: "ir.Node") -> NDArray[np.float64]:
    """Returns the bias, by which a Gemm's factor of it becomes 1; a 0 if there is none."""
    old = np.zeros(1) if _bias(layer) is None else _float64(_bias(layer)).reshape(-1)
    if layer.op_type == "Gemm":
        old = old * layer.attributes.get_float("beta", 1.0)
        layer.attributes.pop("beta", None)
    return old


def _store(layer: "ir.Node", weight: NDArray[np.float64]) -> None:
    old, value = array_of(layer.inputs[1]), layer.inputs[1]
    assert old is not None
    assert value is not None
    store(value, weight.astype(old.dtype))


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

"""Stores the weights of LSTM, GRU and RNN nodes as integers.

A DequantizeLinear before the node turns them back into floats: the file is as small as with an integer kernel, and the
arithmetic is float. With format=qoperator an LSTM with 8-bit weights becomes onnxruntime's DynamicQuantizeLSTM, which also
quantizes its input and hidden state, with ranges found while it runs; there is no such GRU or RNN.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from spaces.models.layers import RECURRENT, Layer
from spaces.quantization.plan.network import Network
from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.schemes.integers import stored_bytes, stored_zero_point, weight_integers
from spaces.quantization.schemes.scheme import Grid

if TYPE_CHECKING:
    import onnx

N_INPUTS = 8  # of an LSTM, before the scales and zero points of a DynamicQuantizeLSTM
CONTRIB = "com.microsoft"


def store_recurrent_weights(
    proto: "onnx.ModelProto", network: Network, plan: Plan, settings: Settings
) -> None:
    """Replaces the float weights of recurrent nodes by integers, in place.

    Args:
        proto: The model, whose recurrent nodes are those of the float model.
        network: The model's quantizable nodes and tensors.
        plan: The grid of every tensor.
        settings: The knobs.
    """
    layers: dict[str, list[Layer]] = {}
    for layer in network.layers:
        if layer.op_type in RECURRENT and layer.name in plan.weights:
            layers.setdefault(layer.node, []).append(layer)
    if not layers:
        return
    floats = {i.name: i for i in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.name in layers]
    for node in nodes:
        if settings.format == "qoperator" and _has_kernel(node, plan):
            _make_dynamic(proto, node, floats, plan, settings)
        else:
            for layer in layers[node.name]:
                dequantize_weight(proto, node, layer, floats, plan.weights[layer.name], settings)


def _has_kernel(node: "onnx.NodeProto", plan: Plan) -> bool:
    """Whether onnxruntime's DynamicQuantizeLSTM takes the node: both weights of 8 bits, symmetric ones."""
    grids = [plan.weights.get(name) for name in node.input[1:3]]
    return node.op_type == "LSTM" and all(
        g is not None and g.bits == 8 and not g.zero_point.any() for g in grids
    )


def dequantize_weight(
    proto: "onnx.ModelProto",
    node: "onnx.NodeProto",
    layer: Layer,
    floats: Mapping[str, "onnx.TensorProto"],
    grid: Grid,
    settings: Settings,
) -> None:
    """Lets a node read a weight from integers through a DequantizeLinear, in place; the float weight stays among the initializers."""
    from onnx import helper

    name, output = layer.name, f"{layer.name}_dequantized"
    if not any(output in n.output for n in proto.graph.node):
        parts = _integers(name, floats[name], grid, settings)
        proto.graph.initializer.extend(parts)
        axis = {} if grid.axis is None else {"axis": grid.axis}
        inputs = [part.name for part in parts]
        proto.graph.node.append(
            helper.make_node("DequantizeLinear", inputs, [output], f"{name}_DequantizeLinear", **axis)
        )
    node.input[1:3] = [output if i == name else i for i in node.input[1:3]]


def _integers(
    name: str, weight: "onnx.TensorProto", grid: Grid, settings: Settings
) -> tuple["onnx.TensorProto", "onnx.TensorProto", "onnx.TensorProto"]:
    """Returns the integers, the scales and the zero points, named as onnxruntime's tool names those of other layers."""
    from onnx import TensorProto, numpy_helper

    stored = settings.weight_type
    kind = TensorProto.DataType.Value(f"{'U' if stored == 'unsigned' else ''}INT{grid.stored_bits}")
    zero = stored_bytes(stored_zero_point(grid, stored), grid.stored_bits, stored)
    data = weight_integers(numpy_helper.to_array(weight), grid, stored)
    rows = (
        ("quantized", weight.dims, kind, data),
        ("scale", grid.scale.shape, TensorProto.FLOAT, grid.scale.tobytes()),
        ("zero_point", grid.scale.shape, kind, zero),
    )
    made = (TensorProto(dims=d, data_type=k, name=f"{name}_{part}", raw_data=raw) for part, d, k, raw in rows)
    return next(made), next(made), next(made)


def _make_dynamic(
    proto: "onnx.ModelProto",
    node: "onnx.NodeProto",
    floats: Mapping[str, "onnx.TensorProto"],
    plan: Plan,
    settings: Settings,
) -> None:
    """Turns an LSTM into a DynamicQuantizeLSTM: its weights are transposed, scales are for each direction."""
    from onnx import helper, numpy_helper

    known = {i.name for i in proto.graph.initializer}
    names, scales = [], list[str]()
    for name in node.input[1:3]:
        integers, scale, zero = _integers(name, floats[name], plan.weights[name], settings)
        turned = np.swapaxes(numpy_helper.to_array(integers), 1, 2)
        per_channel = plan.weights[name].axis is not None
        shape = (turned.shape[0], turned.shape[2]) if per_channel else (turned.shape[0],)
        made = [numpy_helper.from_array(np.ascontiguousarray(turned), integers.name)]
        for part in (scale, zero):
            wide = np.ascontiguousarray(np.broadcast_to(numpy_helper.to_array(part), shape))
            made.append(numpy_helper.from_array(wide, part.name))
        proto.graph.initializer.extend(part for part in made if part.name not in known)
        known.update(part.name for part in made)
        names.append(integers.name)
        scales += [scale.name, zero.name]
    rest = list(node.input[3:])
    inputs = [node.input[0], *names, *rest, *[""] * (N_INPUTS - 3 - len(rest)), *scales]
    node.op_type, node.domain = "DynamicQuantizeLSTM", CONTRIB
    node.input[:] = inputs
    kept = [a for a in node.attribute if a.name != "layout"]
    del node.attribute[:]
    node.attribute.extend(kept)
    if all(o.domain != CONTRIB for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(CONTRIB, 1))

"""Cross-layer equalization of the channel ranges of consecutive layers, in the float network.

Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (arXiv 1906.04721), section 4.1: channel `i` between two layers is divided by `s_i` in the first
and multiplied by `s_i` in the second. With `s_i = sqrt(r1_i / r2_i)` (from equation 11) both layers' ranges
of the channel become `sqrt(r1_i r2_i)`. Since pairs may share a layer (as around a depthwise convolution),
all pairs are equalized repeatedly until convergence.

A ReLU between the layers commutes with positive factors, so the function stays the same. A Clip to [0, c] does
not; as in the paper, it is replaced by a ReLU, which changes the function where the network saturates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.models.layers import Layer, layers
from spaces.quantization.plan.left_float import layer_problem

if TYPE_CHECKING:
    import onnx

# Operators that commute with a positive factor per channel, and keep the order of the channels.
HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")
N_SWEEPS = 40
CONVERGED = 1e-4
SMALLEST_SCALE, LARGEST_SCALE = 1e-3, 1e3  # per sweep; channels beyond (weights near 0) are not scaled


@dataclass(frozen=True)
class Pair:
    """Two consecutive layers, with only operators between them that commute with a factor per channel.

    Attributes:
        first: The layer whose output channels are scaled.
        second: The layer that reads these channels.
        clips: Names of the Clip nodes between them, to be replaced by ReLU.
    """

    first: Layer
    second: Layer
    clips: tuple[str, ...] = ()


def pairs(proto: "onnx.ModelProto") -> tuple[Pair, ...]:
    """Returns the pairs of layers that can be equalized, in topological order."""
    return tuple(_pairs(proto))


def _pairs(proto: "onnx.ModelProto") -> Iterator[Pair]:
    readers: dict[str, list[onnx.NodeProto]] = {o.name: [] for o in proto.graph.output}
    initializers = {i.name: i for i in proto.graph.initializer}
    outputs = frozenset(readers)
    for node in proto.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    nodes = {node.name: node for node in proto.graph.node}
    by_node = {
        layer.node: layer
        for layer in layers(proto)
        if _can_scale(layer, readers) and layer_problem(layer, nodes[layer.node], initializers) is None
    }
    for first in by_node.values():
        clips: list[str] = []
        tensor = first.output
        while tensor not in outputs and len(readers.get(tensor, ())) == 1:
            node = readers[tensor][0]
            if node.name in by_node and node.input[0] == tensor:
                second = by_node[node.name]
                if _channels_fit(first, second):
                    yield Pair(first, second, tuple(clips))
                break
            if _is_relu_like_clip(node, initializers):
                clips.append(node.name)
            elif node.op_type not in HOMOGENEOUS:
                break
            tensor = node.output[0]


def _can_scale(layer: Layer, readers: Mapping[str, list["onnx.NodeProto"]]) -> bool:
    if layer.op_type not in ("Conv", "Gemm") or len(readers[layer.name]) != 1:
        return False  # a weight that two nodes share cannot have two scales
    return layer.bias is None or len(readers[layer.bias]) == 1


def _channels_fit(first: Layer, second: Layer) -> bool:
    n_channels = first.weight_shape[first.weight_axis_out]
    if second.op_type == "Gemm":  # after a flatten the channels would not line up
        return first.op_type == "Gemm" and second.weight_shape[1 - second.weight_axis_out] == n_channels
    return first.op_type == "Conv" and second.weight_shape[1] in (1, n_channels)  # depthwise, or one group


def _is_relu_like_clip(node: "onnx.NodeProto", initializers: Mapping[str, "onnx.TensorProto"]) -> bool:
    from onnx import numpy_helper

    if node.op_type != "Clip" or len(node.input) < 2 or node.input[1] not in initializers:
        return False
    return float(numpy_helper.to_array(initializers[node.input[1]]).reshape(-1)[0]) == 0.0


def equalize(proto: "onnx.ModelProto") -> None:
    """Equalizes every pair of the float model, in place."""
    from onnx import numpy_helper

    found = pairs(proto)
    initializers = {i.name: i for i in proto.graph.initializer}
    names = {p.first.name for p in found} | {p.second.name for p in found} | {p.first.bias for p in found}
    values = {
        n: numpy_helper.to_array(initializers[n]).astype(np.float64) for n in sorted(filter(None, names))
    }
    for _ in range(N_SWEEPS):
        change = max((_equalize_pair(pair, values) for pair in found), default=0.0)
        if change < CONVERGED:
            break
    for name, value in values.items():
        initializers[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    clips = {name for pair in found for name in pair.clips}
    for node in proto.graph.node:
        if node.name in clips:
            node.op_type = "Relu"
            del node.input[1:]


def _equalize_pair(pair: Pair, values: dict[str, NDArray[np.float64]]) -> float:
    """Scales one pair in place. Returns the largest absolute logarithm of a factor."""
    outgoing = np.moveaxis(values[pair.first.name], pair.first.weight_axis_out, 0)
    incoming = _by_input_channel(values[pair.second.name], pair, len(outgoing))
    first, second = _ranges(outgoing), _ranges(incoming)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt(first / second)  # (n_channels,)
    usable = np.isfinite(scale) & (scale > SMALLEST_SCALE) & (scale < LARGEST_SCALE)
    scale = np.where(usable, scale, 1.0)
    outgoing /= _along_first(scale, outgoing.ndim)  # views: the arrays in `values` change
    incoming *= _along_first(scale, incoming.ndim)
    if pair.first.bias is not None:
        values[pair.first.bias] /= scale
    return float(np.abs(np.log(scale)).max())


def _by_input_channel(weight: NDArray[np.float64], pair: Pair, n_channels: int) -> NDArray[np.float64]:
    """Returns a view `(n_channels, ...)` by input channel, which is the output axis of a depthwise weight."""
    if pair.second.op_type == "Gemm":
        return np.moveaxis(weight, 1 - pair.second.weight_axis_out, 0)
    if weight.shape[1] == n_channels:
        return np.moveaxis(weight, 1, 0)
    return weight.reshape(n_channels, -1, *weight.shape[2:])


def _ranges(by_channel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.abs(by_channel).reshape(len(by_channel), -1).max(axis=1))


def _along_first(scale: NDArray[np.float64], n_axes: int) -> NDArray[np.float64]:
    return scale.reshape(-1, *[1] * (n_axes - 1))

"""Numeric descriptors of a model and its task, by which a sampler compares studies."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluators.task.tasks.task import Splits, Task
from spaces.errors import ParedownError
from spaces.stages.artifact import Artifact

if TYPE_CHECKING:
    import onnx

_ACTIVATIONS = {
    "Relu": "relu", "Clip": "relu6", "HardSwish": "hard_swish", "HardSigmoid": "sigmoid", "Sigmoid": "sigmoid",
    "Gelu": "gelu", "Erf": "gelu", "Tanh": "tanh", "LeakyRelu": "leaky_relu", "PRelu": "leaky_relu", "Elu": "elu",
    "Softplus": "softplus", "Mish": "mish", "Swish": "swish",
}  # fmt: skip
_MOST_BITS = 8.0  # a channel whose range is smaller by more bits is all zero in 8 bits
_NORMALISATIONS = ("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization")


def descriptors_of(artifact: Artifact, task: Task, splits: Splits) -> dict[str, float]:
    """Returns the descriptors by name; those that cannot be computed for this network are left out.

    Sizes are logarithms to base 2, so that a difference of 1 is a factor of two.

    Args:
        artifact: The uncompressed ONNX model.
        task: Its task.
        splits: The task's data.
    """
    return {**_of_task(task, splits), **_of_model(artifact)}


def _of_task(task: Task, splits: Splits) -> dict[str, float]:
    return {
        "log2_classes": _log2(task.n_classes or 1),
        "log2_examples": _log2(len(splits.validation)),
        "log2_input": _log2(_input_size(task)),
    }


def _input_size(task: Task) -> int:
    shapes = task.input_shape
    return sum(map(math.prod, shapes.values() if isinstance(shapes, Mapping) else [shapes]))


def _of_model(artifact: Artifact) -> dict[str, float]:
    try:
        proto = artifact.proto()
        return {**_layers(proto), **_weights(proto), **_macs(artifact)}
    except (
        Exception
    ):  # an unusual graph must not stop the study here: the stages report what they do not support
        return {}


def _layers(proto: "onnx.ModelProto") -> dict[str, float]:
    stored = {i.name: tuple(i.dims) for i in proto.graph.initializer}
    kinds: Counter[str] = Counter()
    for node in proto.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            kinds[_convolution(node, stored)] += 1
        elif node.op_type in ("Gemm", "MatMul") and any(name in stored for name in node.input):
            kinds["fully_connected"] += 1
        elif node.op_type == "MatMul":
            kinds["products"] += 1
        elif node.op_type == "Add" and not any(name in stored for name in node.input):
            kinds["skips"] += 1
        elif node.op_type == "Concat":
            kinds["concats"] += 1
        elif node.op_type in _NORMALISATIONS:
            kinds["normalisations"] += 1
        elif node.op_type in _ACTIVATIONS:
            kinds[f"activation_{_ACTIVATIONS[node.op_type]}"] += 1
    always = ("conv", "depthwise", "pointwise", "fully_connected", "skips")
    return {
        "nodes": float(len(proto.graph.node)),
        **{name: float(kinds[name]) for name in always + tuple(kinds)},
    }


def _convolution(node: "onnx.NodeProto", stored: dict[str, tuple[int, ...]]) -> str:
    shape = stored.get(node.input[1], ())
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if groups > 1 and shape[1:2] == (1,):
        return "depthwise"
    return "pointwise" if shape and math.prod(shape[2:]) == 1 else "conv"


def _weights(proto: "onnx.ModelProto") -> dict[str, float]:
    """Returns the number of parameters, and the spread of the ranges of a layer's channels.

    `channel_spread`: mean over the layers of log2(largest range / median range) of a weight's output channels: the
    bits that the median channel loses if the whole tensor has one scale.
    """
    from onnx import numpy_helper

    from spaces.models.layers import layers

    arrays = {i.name: i for i in proto.graph.initializer}
    parameters = sum(math.prod(i.dims) for i in proto.graph.initializer if i.data_type in (1, 10, 11, 16))
    spreads = [
        spread
        for layer in layers(proto)
        if (spread := _spread(numpy_helper.to_array(arrays[layer.name]), layer.weight_axis_out)) is not None
    ]
    sizes = {"log2_parameters": _log2(parameters)}
    return {**sizes, "channel_spread": float(np.mean(spreads))} if spreads else sizes


def _spread(weight: NDArray[np.generic], axis: int) -> float | None:
    if not weight.size:
        return None
    ranges = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(axis=1, initial=0.0)
    median = float(np.median(ranges))
    spread = float(np.log2(ranges.max() / median)) if median > 0 else math.nan
    return min(spread, _MOST_BITS) if math.isfinite(spread) else None


def _macs(artifact: Artifact) -> dict[str, float]:
    from evaluators.cost.graph.op_graph import op_graph

    try:
        return {"log2_macs": _log2(op_graph(artifact).macs)}
    except ParedownError:
        return {}  # a shape is dynamic


def _log2(size: float) -> float:
    return math.log2(max(1.0, size))

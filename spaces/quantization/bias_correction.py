"""Analytic bias correction: takes out the mean error that rounded weights put on each output channel.

Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction"
(arXiv 1906.04721), section 4.2: `E[y~] - E[y] = (W~ - W) E[x]`, which is subtracted from the bias. The mean input is
taken from calibration data, and padding is ignored, as in the paper.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.models.layers import Layer
from spaces.quantization.schemes import Grid

if TYPE_CHECKING:
    import onnx


def is_correctable(layer: Layer) -> bool:
    """Whether the layer has a place for a bias, and its mean output follows from its mean input."""
    # A MatMul has no bias input; a strided ConvTranspose sums other taps at every output position.
    return layer.op_type in ("Conv", "Gemm")


def correct_biases(
    proto: "onnx.ModelProto",
    layers: Iterable[Layer],
    weights: Mapping[str, NDArray[np.float32]],
    grids: Mapping[str, Grid],
    means: Mapping[str, NDArray[np.float64]],
) -> None:
    """Changes the biases of the float model in place; a layer without a bias gets one.

    Args:
        proto: The float model.
        layers: Its layers.
        weights: Layer name to float weight.
        grids: Layer name to the grid of its weight; other layers are left alone.
        means: Tensor name to the mean of each channel, `(n_channels,)`.
    """
    from onnx import numpy_helper

    initializers = {i.name: i for i in proto.graph.initializer}
    nodes = {node.name: node for node in proto.graph.node}
    for layer in layers:
        if layer.name not in grids or not is_correctable(layer):
            continue
        weight = weights[layer.name]
        error = grids[layer.name].dequantized(weight).astype(np.float64) - weight
        shift = _mean_output(error, means[layer.input], layer)
        if layer.bias is None:
            name = f"{layer.node}.bias"
            new = numpy_helper.from_array((-shift).astype(np.float32), name)
            proto.graph.initializer.append(new)
            del nodes[layer.node].input[2:]
            nodes[layer.node].input.append(name)
        elif layer.bias in initializers:
            old = numpy_helper.to_array(initializers[layer.bias])
            corrected = (old - shift).astype(np.float32)
            initializers[layer.bias].CopyFrom(numpy_helper.from_array(corrected, layer.bias))


def _mean_output(weight: NDArray[np.float64], mean: NDArray[np.float64], layer: Layer) -> NDArray[np.float64]:
    """Returns the mean of each output channel, `(n_out,)`, for inputs of the given channel means, `(n_in,)`."""
    if layer.op_type == "Gemm":
        return weight @ mean if layer.weight_axis_out == 0 else mean @ weight
    taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2)  # (n_out, n_in / n_groups)
    groups = mean.reshape(-1, taps.shape[1])  # (n_groups, n_in / n_groups)
    by_group = taps.reshape(len(groups), -1, taps.shape[1])
    return np.asarray(np.einsum("goi,gi->go", by_group, groups).ravel())

"""Analytic bias correction: compensates the mean error of each output channel from quantized weights.

Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction"
(arXiv 1906.04721), section 4.2: `E[y~] - E[y] = (W~ - W) E[x]`, which is subtracted from the bias. The mean input is
taken from calibration data, and padding is ignored, as in the paper.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.models.layers import Layer
from spaces.quantization.schemes.scheme import Grid

if TYPE_CHECKING:
    import onnx


def is_correctable(layer: Layer) -> bool:
    """Whether the layer can have a bias, and its mean output follows from its mean input."""
    # A MatMul has no bias input; a strided ConvTranspose sums different kernel elements at each output
    # position.
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
        grids: Layer name to the grid of its weight; other layers are skipped.
        means: Tensor name to the mean of each channel, `(n_channels,)`.
    """
    from onnx import numpy_helper

    found = tuple(layers)
    wanted = {layer.bias for layer in found}
    biases = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer if i.name in wanted}
    shifts = {
        layer.node: mean_error(layer, weights[layer.name], grids[layer.name], means[layer.input])
        for layer in found
        if layer.name in grids and is_correctable(layer)
    }
    set_biases(proto, found, corrected_biases(found, biases, shifts))


def bias_name(layer: Layer) -> str:
    """Returns the name of the layer's bias, or of the one that correction adds."""
    return f"{layer.node}.bias" if layer.bias is None else layer.bias


def mean_error(
    layer: Layer,
    weight: NDArray[np.float32],
    grid: Grid | None,
    mean: NDArray[np.float64],
    rounded: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Returns the mean error of each output channel from the quantized weight, `(n_out,)`.

    Args:
        layer: A layer that can be corrected.
        weight: Its float weight.
        grid: The weight's grid; None if it has none.
        mean: Mean of each channel of the layer's input, `(n_in,)`.
        rounded: The weight as it is stored; None rounds it to nearest on the grid.
    """
    if rounded is None:
        rounded = weight if grid is None else grid.dequantized(weight)
    error = rounded.astype(np.float64) - weight
    return _mean_output(error, mean, layer)


def corrected_biases(
    layers: Iterable[Layer],
    biases: Mapping[str, NDArray[np.float32]],
    shifts: Mapping[str, NDArray[np.float64]],
) -> dict[str, NDArray[np.float32]]:
    """Returns the biases, by name, that compensate the mean errors.

    Args:
        layers: The layers of the model.
        biases: Bias name to float bias.
        shifts: Node name to `mean_error`; other layers are skipped.
    """
    found = {}
    for layer in layers:
        if layer.node in shifts and (layer.bias is None or layer.bias in biases):
            old = 0.0 if layer.bias is None else biases[layer.bias]
            found[bias_name(layer)] = (old - shifts[layer.node]).astype(np.float32)
    return found


def set_biases(
    proto: "onnx.ModelProto", layers: Iterable[Layer], biases: Mapping[str, NDArray[np.float32]]
) -> None:
    """Writes biases into the float model, in place; a layer without a bias gets an input for it."""
    from onnx import numpy_helper

    initializers = {i.name: i for i in proto.graph.initializer}
    nodes = {node.name: node for node in proto.graph.node}
    for layer in layers:
        name = bias_name(layer)
        if name not in biases:
            continue
        tensor = numpy_helper.from_array(biases[name], name)
        if layer.bias is None:
            proto.graph.initializer.append(tensor)
            del nodes[layer.node].input[2:]
            nodes[layer.node].input.append(name)
        else:
            initializers[name].CopyFrom(tensor)


def _mean_output(weight: NDArray[np.float64], mean: NDArray[np.float64], layer: Layer) -> NDArray[np.float64]:
    """Returns the mean of each output channel, `(n_out,)`, for inputs of the given channel means, `(n_in,)`."""
    if layer.op_type == "Gemm":
        return weight @ mean if layer.weight_axis_out == 0 else mean @ weight
    kernel_sums = weight.reshape(*weight.shape[:2], -1).sum(axis=2)  # (n_out, n_in / n_groups)
    groups = mean.reshape(-1, kernel_sums.shape[1])  # (n_groups, n_in / n_groups)
    by_group = kernel_sums.reshape(len(groups), -1, kernel_sums.shape[1])
    return np.asarray(np.einsum("goi,gi->go", by_group, groups).ravel())

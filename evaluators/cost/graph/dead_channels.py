"""Removal of dead channels, which are constant because all their weights are zero."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph.kernel import Kernel
from evaluators.cost.graph.op_graph import OpGraph
from spaces.stages.artifact import Artifact

_CONVOLUTIONS = ("conv", "pointwise", "depthwise")
_CHANNEL_WISE = ("elementwise", "pool", "quantize")
_ZERO = 1e-6  # weights below this fraction of the layer's largest weight count as zero

_Alive = dict[str, NDArray[np.bool_]]


def without_dead_channels(graph: OpGraph, artifact: Artifact) -> OpGraph:
    """Returns the kernels after dead channels are folded into the biases of the layers that read them.

    The output of a filter without nonzero weights is constant, and so is every channel-wise function of it.
    Published networks have many such channels: they take half of the multiply-accumulates of MLPerf Tiny's
    visual wake words reference network, and compilers for microcontrollers differ by a factor of two there.

    Args:
        graph: Kernels of `artifact`.
        artifact: The ONNX artifact, whose weights are read.

    Returns:
        The same kernels with fewer multiply-accumulates and bytes; `graph` itself if no channel is dead.
    """
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in artifact.proto().graph.initializer}
    weights = {
        k.weight: numpy_helper.to_array(stored[k.weight])
        for k in graph.kernels
        if k.kind in _CONVOLUTIONS and k.weight in stored
    }
    alive: _Alive = {}
    kernels = tuple(_reduced(kernel, weights, alive) for kernel in graph.kernels)
    return graph if kernels == graph.kernels else replace(graph, kernels=kernels)


def _reduced(kernel: Kernel, weights: Mapping[str, NDArray[Any]], alive: _Alive) -> Kernel:
    known = [alive[name] for name in kernel.inputs if name in alive]
    if kernel.kind in _CHANNEL_WISE and known and len(known) == len(kernel.inputs):
        if len({len(mask) for mask in known}) == 1:
            return _channel_wise(kernel, np.logical_or.reduce(known), alive)
        return kernel
    if kernel.weight not in weights or kernel.geometry is None:
        return kernel
    return _convolution(kernel, weights[kernel.weight], known[0] if known else None, alive)


def _channel_wise(kernel: Kernel, mask: NDArray[np.bool_], alive: _Alive) -> Kernel:
    alive.update(dict.fromkeys(kernel.outputs, mask))
    return _scaled(kernel, float(mask.mean()), float(mask.mean()), 1.0)


def _convolution(
    kernel: Kernel, weight: NDArray[Any], given: NDArray[np.bool_] | None, alive: _Alive
) -> Kernel:
    geometry = kernel.geometry
    depthwise = kernel.kind == "depthwise"
    if (
        geometry is None
        or weight.shape[0] != geometry.out_channels
        or (geometry.groups > 1 and not depthwise)
    ):
        return kernel
    if depthwise and geometry.in_channels != geometry.out_channels:
        return kernel
    reads = given if given is not None and len(given) == geometry.in_channels else None
    reads = np.ones(geometry.in_channels, bool) if reads is None else reads
    size = np.abs(weight.astype(np.float64))
    counts = size > _ZERO * size.max()
    if depthwise:
        writes = counts.reshape(len(weight), -1).any(axis=1) & reads
    else:
        writes = counts[:, reads].reshape(len(weight), -1).any(axis=1)
    alive.update(dict.fromkeys(kernel.outputs, writes))
    share_in, share_out = float(reads.mean()), float(writes.mean())
    return _scaled(kernel, share_in, share_out, share_out if depthwise else share_in * share_out)


def _scaled(kernel: Kernel, share_in: float, share_out: float, share_weights: float) -> Kernel:
    if share_in == share_out == share_weights == 1.0:
        return kernel
    return replace(
        kernel,
        macs=round(kernel.macs * share_weights),
        weight_bytes=round(kernel.weight_bytes * share_weights),
        input_bytes=round(kernel.input_bytes * share_in),
        output_bytes=round(kernel.output_bytes * share_out),
        elements=round(kernel.elements * share_out),
    )

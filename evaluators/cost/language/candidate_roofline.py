"""The roofline of a candidate's decoder on a device: its shape from the checkpoint, its width from the candidate's file."""

from math import prod
from typing import TYPE_CHECKING

from evaluators.cost.language.candidate_decoder import checkpoint_path
from evaluators.cost.language.decoder import BitWidth, Decoder
from evaluators.cost.language.decoder_roofline import Hardware, Pass, Widths, decode
from evaluators.devices.device import Device
from spaces.models.zoo.language.llama2c import read_sizes

if TYPE_CHECKING:
    import onnx

_FLOAT = BitWidth(32)


def decoder_shape(checkpoint: str | None) -> Decoder:
    """Returns the shape that a checkpoint of llama2.c states.

    Raises:
        EvaluationError: There is no checkpoint of llama2.c.
        InputError: It is missing, damaged or of another format.
    """
    sizes = read_sizes(checkpoint_path(checkpoint))
    return Decoder(
        layers=sizes["n_layers"],
        d_model=sizes["dim"],
        heads=sizes["n_heads"],
        kv_heads=sizes["n_kv_heads"],
        head_dim=sizes["dim"] // sizes["n_heads"],
        ffn_dim=sizes["ffn_dim"],
        vocabulary=sizes["vocabulary_size"],
        tied_embedding=True,
    )


def width_of(candidate: "onnx.ModelProto") -> BitWidth:
    """Returns the mean width of the weights of all MatMul nodes, their scales and zero points included."""
    stored = {tensor.name: tensor for tensor in candidate.graph.initializer}
    producers = {output: node for node in candidate.graph.node for output in node.output}
    bits = elements = 0.0
    for node in candidate.graph.node:
        restored = producers.get(node.input[1]) if node.op_type == "MatMul" else None
        names = (
            [*restored.input]
            if restored is not None and restored.op_type == "DequantizeLinear"
            else node.input[1:2]
        )
        if node.op_type == "MatMul" and names and all(name in stored for name in names):
            bits += sum(_bits(stored[name]) for name in names)
            elements += prod(stored[names[0]].dims)
    return BitWidth(bits / elements) if elements else _FLOAT


def modelled_pass(
    shape: Decoder, width: BitWidth, device: Device, context: int, is_integer: bool
) -> Pass | None:
    """Returns the pass that writes one token after `context` tokens; None if the profile lacks a throughput or the bandwidth.

    Args:
        shape: The decoder.
        width: Of the layers' weights; the output layer and the cache are float.
        device: The device.
        context: Tokens that were read before.
        is_integer: Whether the layers' inputs are integers, too.
    """
    rate = device.throughput("int8" if is_integer else "float32", "fully_connected")
    bandwidth = device.flash_bandwidth_bytes_per_s or device.memory_bandwidth_bytes_per_s
    if rate is None or bandwidth is None:
        return None
    hardware = Hardware(rate, bandwidth, device.run_overhead_us * 1e-6)
    return decode(shape, context, hardware, widths=Widths(width, _FLOAT, _FLOAT))


def _bits(tensor: "onnx.TensorProto") -> float:
    import onnx_ir as ir

    return float(prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize * 8)

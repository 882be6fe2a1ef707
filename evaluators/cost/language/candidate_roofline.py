"""The roofline of a candidate's decoder on a device: its shape from the checkpoint, its width from the candidate's file."""

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from evaluators.cost.language.candidate_decoder import checkpoint_path
from evaluators.cost.language.decoder import BitWidth, Decoder, Experts
from evaluators.cost.language.decoder_roofline import Hardware, Pass, Widths, decode, prefill
from evaluators.cost.language.language_model import cache_bytes, weight_bytes
from evaluators.devices.device import Device
from spaces.models.zoo.language.llama2c import read_sizes
from spaces.quantization.formats.stored import packed_tensor_bytes
from spaces.quantization.transformers.kv_cache import cache_bits, entry_bytes

if TYPE_CHECKING:
    import onnx

_FLOAT = BitWidth(32)
_EXPERT = re.compile(r"\.experts\.(\d+)\.")  # in the names of weights: see `MixtureOfExperts`


def decoder_shape(checkpoint: str | None, candidate: "onnx.ModelProto") -> Decoder:
    """Returns the shape that a checkpoint of llama2.c states, with the experts that a candidate has beside its feed-forward networks.

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
        experts=_experts(candidate, sizes),
    )


def _experts(candidate: "onnx.ModelProto", sizes: dict[str, int]) -> Experts | None:
    """Returns the experts between which a candidate's TopK nodes choose; None without."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in candidate.graph.initializer}
    active = [
        int(numpy_helper.to_array(stored[node.input[1]]).item())
        for node in candidate.graph.node
        if node.op_type == "TopK" and node.input[1] in stored
    ]
    numbers = {int(found[1]) for name in stored if (found := _EXPERT.search(name))}
    if not active or not numbers:
        return None
    ffn_dim = sizes["ffn_dim"]
    return Experts(max(numbers) + 1, active[0], ffn_dim, ffn_dim, sizes["n_layers"] - len(active))


def width_of(candidate: "onnx.ModelProto", experts: Experts | None = None) -> BitWidth:
    """Returns the mean width of the weights of all MatMul nodes, their scales and zero points included.

    Of experts those that one token uses count, and weights that are recorded as packed as their packed form.
    """
    stored = {tensor.name: tensor for tensor in candidate.graph.initializer}
    n_bytes = packed_tensor_bytes(candidate, {name: _n_bytes(tensor) for name, tensor in stored.items()})
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
            share = experts.active / experts.count if experts and _EXPERT.search(names[0]) else 1.0
            bits += share * 8 * sum(n_bytes[name] for name in names)
            elements += share * prod(stored[names[0]].dims)
    return BitWidth(bits / elements) if elements else _FLOAT


def widths_of(candidate: "onnx.ModelProto", shape: Decoder) -> Widths:
    """Returns the widths of a candidate's decoder: the output layer, which is the embedding, is float."""
    entry = 8 * entry_bytes(cache_bits(candidate), shape.head_dim) / shape.head_dim
    return Widths(width_of(candidate, shape.experts), _FLOAT, BitWidth(entry))


@dataclass(frozen=True)
class ModelledRequest:
    """A request: a prompt, and what is written after it.

    Attributes:
        one: The pass that writes one token, in the middle.
        time_s: Of all passes.
        memory_bytes: All weights, and the cache at the end.
    """

    one: Pass
    time_s: float
    memory_bytes: int


def modelled_request(
    shape: Decoder,
    widths: Widths,
    device: Device,
    is_integer: bool,
    n_prompt: int,
    n_tokens: int,
) -> ModelledRequest | None:
    """Returns a request on a device; None if the profile lacks a throughput or the bandwidth.

    Args:
        shape: The decoder.
        widths: Of the layers' weights, the output layer and the cache.
        device: The device.
        is_integer: Whether the layers' inputs are integers, too.
        n_prompt: Tokens that are read first.
        n_tokens: Tokens that are written.
    """
    rate = device.throughput("int8" if is_integer else "float32", "fully_connected")
    bandwidth = device.flash_bandwidth_bytes_per_s or device.memory_bandwidth_bytes_per_s
    if rate is None or bandwidth is None:
        return None
    hardware = Hardware(rate, bandwidth, device.run_overhead_us * 1e-6)
    one = decode(shape, n_prompt + n_tokens // 2, hardware, widths=widths)
    # The pass over the prompt yields the first token.
    time_s = prefill(shape, n_prompt, hardware, widths=widths).time_s + (n_tokens - 1) * one.time_s
    n_cached = n_prompt + n_tokens - 1
    memory = weight_bytes(shape, widths.weights, widths.head) + cache_bytes(
        shape, n_cached, width=widths.cache
    )
    return ModelledRequest(one, time_s, memory)


def _n_bytes(tensor: "onnx.TensorProto") -> int:
    import onnx_ir as ir

    return int(-(-prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth // 8))

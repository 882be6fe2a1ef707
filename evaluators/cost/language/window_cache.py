"""The key-value cache that a decoder needs for as many tokens as a network's window has, from the network's graph."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.cost.graph.reading.model import read_model
from spaces.quantization.transformers.graph_index import Index
from spaces.quantization.transformers.kv_cache import (
    FLOAT_BITS,
    CachedOperand,
    cache_bits,
    cached_operands,
    entry_bytes,
)
from spaces.stages.artifact import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from evaluators.cost.graph.operators.tensors import Tensor

_MOVING = ("Transpose", "Reshape", "Expand", "Unsqueeze", "Squeeze", "Tile", "Gather")
"""Between a key or value and the product that reads it: layout, and copies for the heads that share it."""
_ROUNDING = ("QuantizeLinear", "DequantizeLinear", "Clip", "Cast")


@dataclass(frozen=True)
class WindowCache:
    """Keys and values of all layers.

    Attributes:
        n_tokens: Tokens of the window.
        n_bytes: Bytes of all of them.
        bits: Bits of an element, without the scales of those below 16.
    """

    n_tokens: int
    n_bytes: int
    bits: int

    def __str__(self) -> str:
        """Says what it is, and what it is part of."""
        return f"with {self.n_bytes} bytes of keys and values in {self.bits} bits, which a decoder caches for the window's {self.n_tokens} tokens"


def window_cache(artifact: Artifact) -> WindowCache | None:
    """Returns the cache of an ONNX artifact with causal attention; None for others.

    Raises:
        EvaluationError: A shape is dynamic, missing, or does not fit the artifact's input.
    """
    # attention needs it: most networks have none, and are not parsed
    if b"Softmax" not in artifact.onnx_bytes:
        return None
    proto = artifact.proto()
    operands, index = cached_operands(proto), Index(proto)
    if not operands:
        return None
    tensors, stored_bits = read_model(artifact).tensors, cache_bits(proto)
    first = tensors[operands[0].tensor]
    bits = first.bits if stored_bits == FLOAT_BITS else stored_bits
    n_bytes = 0
    for operand in operands:
        n_elements, head_dim = (
            _n_elements(index, operand, tensors),
            tensors[operand.tensor].shape[operand.axis],
        )
        of_head = head_dim * bits // 8 if stored_bits == FLOAT_BITS else entry_bytes(bits, head_dim)
        n_bytes += n_elements // head_dim * of_head
    return WindowCache(first.shape[-3 - operands[0].axis], n_bytes, bits)


def _n_elements(index: Index, operand: CachedOperand, tensors: "Mapping[str, Tensor]") -> int:
    """Returns the elements of a key or value before it is copied for the queries' heads."""
    return min(tensors[name].n_elements for name in _before_copies(index, operand.tensor) if name in tensors)


def _before_copies(index: Index, name: str) -> "Iterator[str]":
    yield name
    node = index.producers.get(name)
    if node is not None and (node.op_type in _MOVING + _ROUNDING or "Cache" in node.op_type):
        yield from _before_copies(index, node.input[0])

"""How wide each tensor of a graph is, and which other tensor's width it shares."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.cost.graph.reading.folding import Folding

Bits = TypeVar("Bits", int, NDArray[np.int64])


@dataclass(frozen=True)
class Width:
    """Size of one tensor.

    Attributes:
        elements: How many elements it has.
        bits: Of an element.
        is_integer: Whether it is quantized: integers of at most 16 bits.
        of: For a zero point the tensor that it belongs to, whose type it has; empty otherwise.
    """

    elements: int
    bits: int
    is_integer: bool = False
    of: str = ""

    def n_bytes(self, bits: Bits) -> Bits:
        """Size in bytes if an element had `bits` (one number or an array of them), sub-byte elements packed."""
        return -(-self.elements * bits // 8)


def widths_of(nodes: Iterable[Node], folding: Folding, activations: Iterable[str]) -> dict[str, Width]:
    """Returns the widths of stored tensors that some node reads, and of `activations`."""
    owners = dict(owner for node in nodes for owner in _zero_point(node, folding))
    stored = (name for name in folding.stored if name in folding.readers)
    return {name: _width(folding.tensors[name], owners.get(name, "")) for name in (*stored, *activations)}


def _width(tensor: Tensor, owner: str) -> Width:
    if tensor.stored_bytes is not None:  # sparse
        return Width(tensor.stored_bytes, 8)
    return Width(tensor.n_elements, tensor.bits, tensor.is_integer, owner)


def _zero_point(node: Node, folding: Folding) -> list[tuple[str, str]]:
    """The stored zero point of a QuantizeLinear or DequantizeLinear, and the quantized tensor in memory."""
    if node.op not in ("QuantizeLinear", "DequantizeLinear") or len(node.inputs) < 3:
        return []
    quantized = node.outputs[0] if node.op == "QuantizeLinear" else node.inputs[0]
    if quantized in folding.constants:
        owners = folding.constants[quantized][:1]
    else:
        owners = (folding.read(quantized, True),)
    return [(name, owner) for name in folding.constants.get(node.inputs[2], ()) for owner in owners]

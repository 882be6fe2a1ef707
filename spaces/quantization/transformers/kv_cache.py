"""Keys and values of causal attention in few bits, as a decoder's cache stores them.

A key or value of one head and token is `q scale + zero` with `scale = (max - min) / (2^bits - 1)` and `zero = min`, both in float16 (asymmetric rounding by
token, as KIVI does it for values, Liu et al. 2024, arXiv 2402.02750, equation 1). What a token stores depends on that token alone, so a network that
reads whole windows and a decoder with a cache compute with the same keys and values: in both they are rounded where a product with the queries
or with the attention's shares reads them. Sixteen bits are float16.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.quantization.formats.packing.bit_packing import n_packed_bytes
from spaces.quantization.formats.stored import SIMULATING, record_simulated
from spaces.quantization.transformers.functions import add_functions
from spaces.quantization.transformers.graph_index import STANDARD, Index

if TYPE_CHECKING:
    import onnx

INTEGERS, HALF = "KeyValueCache", "HalfKeyValueCache"
CACHES = (INTEGERS, HALF)
"""Names of the functions that round what is stored."""

FLOAT_BITS = 32
SIMULATED_CACHE = "kv_bits={bits}: no runtime here stores keys and values so; the file rounds them where a decoder's cache would (simulated), and gets no latency"
_ROUNDING = ("QuantizeLinear", "DequantizeLinear", "Clip")
_BETWEEN = ("Add", "Sub", "Mul", "Div", "Where", *_ROUNDING)  # scores and softmax: scaling and masks
_PRODUCTS = {"MatMul": 1, "QLinearMatMul": 3}  # with the position of the second operand
_MOST_STEPS = 12
_MASKED = -1e3

_TEXTS = {
    INTEGERS: """
<domain: "{domain}", opset_import: ["": {opset}]>
KeyValueCache <axes, n_steps> (x) => (y)
{{
  n_steps = Constant <value_float: float = @n_steps> ()
  nothing = Constant <value_float: float = 0.0> ()
  least = Constant <value_float: float = 0.00006103515625> ()
  axes = Constant <value_ints: ints = @axes> ()
  low = ReduceMin <keepdims: int = 1{axes_before_18}> (x{axes_since_18})
  high = ReduceMax <keepdims: int = 1{axes_before_18}> (x{axes_since_18})
  span = Sub (high, low)
  step = Div (span, n_steps)
  wide_enough = Max (step, least)
  half_scale = Cast <to: int = 10> (wide_enough)
  half_zero = Cast <to: int = 10> (low)
  scale = Cast <to: int = 1> (half_scale)
  zero = Cast <to: int = 1> (half_zero)
  above = Sub (x, zero)
  steps = Div (above, scale)
  nearest = Round (steps)
  q = Clip (nearest, nothing, n_steps)
  product = Mul (q, scale)
  y = Add (product, zero)
}}
""",
    HALF: """
<domain: "{domain}", opset_import: ["": {opset}]>
HalfKeyValueCache (x) => (y)
{{
  half = Cast <to: int = 10> (x)
  y = Cast <to: int = 1> (half)
}}
""",
}


@dataclass(frozen=True)
class CachedOperand:
    """An operand of a product that a decoder reads from its cache.

    Attributes:
        node: Name of the MatMul.
        axis: The axis of a head's values: -2 for keys, which are transposed, -1 for values.
        tensor: Name of the operand.
    """

    node: str
    axis: int
    tensor: str


def cached_operands(proto: "onnx.ModelProto", causal: bool = True) -> tuple[CachedOperand, ...]:
    """Returns keys and values of a graph's attention, which are the second operands of two products.

    Args:
        proto: The model, float or quantized.
        causal: Whether only attention counts whose mask is a constant that hides later tokens: without one there is no cache.
    """
    index = Index(proto)
    found = []
    for softmax in index.nodes:
        if softmax.op_type != "Softmax" or softmax.domain not in (*STANDARD, SIMULATING):
            continue
        mixed = index.only_reader(softmax.output[0])
        while mixed is not None and mixed.op_type in _ROUNDING:
            mixed = index.only_reader(mixed.output[0])
        scores = next(_products(index, softmax.input[0]), None)
        if mixed is None or not _is_product(index, mixed) or scores is None:
            continue
        if not causal or any(_hides_later(index, name) for name in _constants(index, softmax.input[0])):
            found += [
                CachedOperand(node.name, axis, _operand(node)) for node, axis in ((scores, -2), (mixed, -1))
            ]
    return tuple(found)


def with_cache_bits(
    proto: "onnx.ModelProto", operands: Sequence[CachedOperand], bits: int
) -> "onnx.ModelProto":
    """Returns the model with keys and values rounded to a width.

    Args:
        proto: The model; it is not changed.
        operands: The operands.
        bits: 2, 4, 8 or 16; 32 leaves the model as it is.
    """
    import onnx
    from onnx import helper

    if bits >= FLOAT_BITS or not operands:
        return proto
    made, axes = onnx.ModelProto(), {operand.node: operand.axis for operand in operands}
    made.CopyFrom(proto)
    kind, nodes = HALF if bits == 16 else INTEGERS, list[onnx.NodeProto]()
    for node in made.graph.node:
        if node.name in axes:
            stored = f"{node.name}_stored"
            attributes = {} if kind == HALF else {"axes": [axes[node.name]], "n_steps": float(2**bits - 1)}
            nodes.append(
                helper.make_node(kind, [node.input[1]], [stored], stored, domain=SIMULATING, **attributes)
            )
            node.input[1] = stored
        nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    add_functions(made, [_TEXTS[kind]])
    record_simulated(made, dict.fromkeys(axes, f"kv_bits={bits}"))
    return made


def cache_bits(proto: "onnx.ModelProto") -> int:
    """Returns the bits of a model's cached keys and values."""
    for node in proto.graph.node:
        if node.domain == SIMULATING and node.op_type == HALF:
            return 16
        if node.domain == SIMULATING and node.op_type == INTEGERS:
            return int(next(a.f for a in node.attribute if a.name == "n_steps") + 1).bit_length() - 1
    return FLOAT_BITS


def entry_bytes(bits: int, head_dim: int) -> int:
    """Returns the bytes of a key or value of one head and token: its integers, and scale and zero in float16."""
    return n_packed_bytes(head_dim, bits) + (4 if bits < 16 else 0)


def _is_product(index: Index, node: "onnx.NodeProto") -> bool:
    """Whether a node is a MatMul of two activations."""
    return node.op_type in _PRODUCTS and all(
        index.constant(name) is None for name in (node.input[0], _operand(node))
    )


def _operand(node: "onnx.NodeProto") -> str:
    """Returns the second operand of a product."""
    return str(node.input[_PRODUCTS[node.op_type]])


def _before(index: Index, name: str) -> "Iterator[onnx.NodeProto]":
    """Yields the nodes before a tensor through scaling and masks, the products that these end at included."""
    names = [name]
    for _ in range(_MOST_STEPS):
        nodes = [node for n in names if (node := index.made_by(n, *_PRODUCTS, *_BETWEEN))]
        yield from nodes
        names = [n for node in nodes if node.op_type not in _PRODUCTS for n in node.input]


def _products(index: Index, name: str) -> "Iterator[onnx.NodeProto]":
    return (node for node in _before(index, name) if _is_product(index, node))


def _constants(index: Index, name: str) -> Iterator[str]:
    return (n for node in _before(index, name) if node.op_type == "Add" for n in node.input)


def _hides_later(index: Index, name: str) -> bool:
    """Whether a constant is a mask over queries and keys that hides all keys behind a query, and not the first key."""
    values = index.constant(name)
    mask = None if values is None or values.dtype.kind != "f" else values.astype(np.float64)
    if mask is None or mask.ndim < 2 or mask.shape[-1] != mask.shape[-2] or mask.shape[-1] < 2:
        return False
    later = np.triu(np.ones(mask.shape[-2:], bool), 1)
    return bool((mask[..., later] <= _MASKED).all() and (mask[..., 0] > _MASKED).all())

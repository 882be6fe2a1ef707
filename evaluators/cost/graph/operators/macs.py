"""Multiply-accumulates of ONNX operators."""

import math
from collections.abc import Mapping

from evaluators.cost.graph.operators import operators as ops
from evaluators.cost.graph.operators.einsum import einsum_macs
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor


def macs(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """Returns the multiply-accumulates of a node; biases and other operators count as 0.

    A convolution takes output elements x input channels per group x window positions, a matrix product output
    elements x inner size (Sze et al. 2017, "Efficient Processing of Deep Neural Networks", section III). A
    recurrent layer uses every element of its two weights once per step and example (Hochreiter, Schmidhuber
    1997). An attention layer takes queries x keys x (width of a query head + width of a value head) x heads
    (Vaswani et al. 2017, section 3.2), without savings from a causal mask, plus its projections if it
    includes their weights.
    """
    op = node.op
    if ops.is_transposed(op):
        read, weight = (tensors[name] for name in ops.operands(node))
        return read.n_elements * math.prod(weight.shape[1:])
    if ops.is_convolution(op):
        written, weight = tensors[node.outputs[0]].shape, tensors[ops.operands(node)[1]]
        n_channels = written[-1 if ops.is_channels_last(node) else 1]
        return (
            math.prod(written) * weight.n_elements // max(n_channels, 1)
        )  # independent of the weight's layout
    if ops.is_product(op):
        return math.prod(tensors[node.outputs[0]].shape) * ops.inner_size(node, tensors)
    if ops.is_recurrent(op):
        weights = (tensors[name].shape for name in node.inputs[1:3])
        return math.prod(tensors[node.inputs[0]].shape[:-1]) * sum(map(math.prod, weights))
    if op == "Einsum":
        return einsum_macs(node.text("equation"), [tensors[name].shape for name in node.inputs])
    counted = _ATTENTION.get(op)
    return counted(node, tensors) if counted else 0


def _standard_attention(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """`Attention` of opset 23: `(batch, heads, length, width)` or `(batch, length, heads x width)`."""
    query, key, value = (tensors[name].shape for name in node.inputs[:3])
    past = _length(node, tensors, 4, -2)
    if len(query) == 4:
        return math.prod(query[:-1]) * (key[-2] + past) * (query[-1] + value[-1])
    n_heads, n_value_heads = (node.integer(name, 1) for name in ("q_num_heads", "kv_num_heads"))
    widths = query[-1] + n_heads * (value[-1] // n_value_heads)
    return math.prod(query[:-1]) * (key[-2] + past) * widths


def _projecting_attention(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """onnxruntime's `Attention` and `QAttention`, which include the projections to query, key and value."""
    *batch, length, width = tensors[node.inputs[0]].shape
    columns = tensors[node.inputs[1]].shape[-1]
    sizes = node.integers("qkv_hidden_sizes") or (columns // 3,) * 3
    past = _length(node, tensors, 8 if node.op == "QAttention" else 4, -2)
    n_queries = math.prod(batch) * length
    return n_queries * (width * columns + (length + past) * (sizes[0] + sizes[2]))


def _multi_head_attention(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """onnxruntime's `MultiHeadAttention`: query, key and value in separate tensors or packed into one."""
    query = tensors[node.inputs[0]].shape
    if len(query) == 5:  # (batch, length, heads, 3, width)
        batch, length, n_heads, _, width = query
        return batch * length * length * n_heads * 2 * width
    key = tensors[node.inputs[1]].shape
    n_keys = key[2] if len(key) == 4 else key[1]
    written = tensors[node.outputs[0]].shape[-1]
    past = _length(node, tensors, 6, -2)
    return math.prod(query[:-1]) * (n_keys + past) * (query[-1] + written)


def _grouped_attention(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """onnxruntime's `GroupQueryAttention`; it attends to its whole cache, `(batch, heads, length, width)`."""
    *batch, length, written = tensors[node.outputs[0]].shape
    present = node.outputs[1] if len(node.outputs) > 1 else ""
    n_keys = tensors[present].shape[-2] if present in tensors else length + _length(node, tensors, 3, -2)
    return math.prod(batch) * length * n_keys * 2 * written


def _length(node: Node, tensors: Mapping[str, Tensor], position: int, axis: int) -> int:
    """Returns the size of one axis of an optional input; 0 if the input is absent."""
    name = node.inputs[position] if position < len(node.inputs) else ""
    return tensors[name].shape[axis] if name else 0


def _attention(node: Node, tensors: Mapping[str, Tensor]) -> int:
    standard = node.domain in ("", "ai.onnx")
    return _standard_attention(node, tensors) if standard else _projecting_attention(node, tensors)


_ATTENTION = {
    "Attention": _attention,
    "QAttention": _projecting_attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _grouped_attention,
}

"""Small questions about an ONNX graph, and small changes to it, that the passes share."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx


def is_op(node: "onnx.NodeProto", *op_types: str) -> bool:
    """Whether the node is one of ONNX's own operators of these names."""
    return node.op_type in op_types and node.domain in ("", "ai.onnx")


def attribute(node: "onnx.NodeProto", name: str, default: Any = None) -> Any:
    """Returns an attribute's value, or `default` if it is not set."""
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def subgraphs(node: "onnx.NodeProto") -> Iterator["onnx.GraphProto"]:
    """Yields the graphs inside a node (the branches of If, the bodies of Loop and Scan)."""
    for a in node.attribute:
        if a.HasField("g"):
            yield a.g
        yield from a.graphs


def all_nodes(graph: "onnx.GraphProto") -> Iterator["onnx.NodeProto"]:
    """Yields every node, those of subgraphs included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def uses(graph: "onnx.GraphProto") -> Counter[str]:
    """Counts how often each tensor is read: by nodes, by subgraphs, and as an output of the graph."""
    counts: Counter[str] = Counter(name for node in graph.node for name in node.input if name)
    counts.update(o.name for o in graph.output)
    for node in graph.node:
        for inner in subgraphs(node):
            counts.update(uses(inner))
    return counts


def initializer_arrays(graph: "onnx.GraphProto") -> dict[str, NDArray[Any]]:
    """Returns every initializer as an array."""
    import onnx

    return {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}


def set_initializer(graph: "onnx.GraphProto", name: str, value: NDArray[Any]) -> None:
    """Adds an initializer, or replaces the one of that name."""
    import onnx

    tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
    for old in graph.initializer:
        if old.name == name:
            old.CopyFrom(tensor)
            return
    graph.initializer.append(tensor)


def rename_uses(graph: "onnx.GraphProto", old: str, new: str) -> None:
    """Lets every node that reads `old` read `new`."""
    for node in all_nodes(graph):
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def fresh_name(graph: "onnx.GraphProto", wish: str) -> str:
    """Returns `wish`, or `wish_1`, `wish_2`, ... if a tensor is called so already."""
    taken = {i.name for i in graph.initializer} | {i.name for i in graph.input}
    taken.update(name for node in all_nodes(graph) for name in (*node.input, *node.output))
    name, n = wish, 0
    while name in taken:
        n += 1
        name = f"{wish}_{n}"
    return name


def drop_unused(graph: "onnx.GraphProto") -> None:
    """Removes nodes, initializers and value infos that no output depends on."""
    counts = uses(graph)
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(counts[name] for name in node.output):
            kept.append(node)
            continue
        counts.subtract(name for name in node.input if name)
        for inner in subgraphs(node):
            counts.subtract(uses(inner))
    replace_all(graph.node, kept[::-1])
    replace_all(graph.initializer, [i for i in graph.initializer if counts[i.name]])
    replace_all(graph.value_info, [v for v in graph.value_info if counts[v.name]])


def replace_all(field: Any, items: list[Any]) -> None:
    """Replaces the content of a repeated protobuf field."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)

"""Queries and small edits of an `onnx_ir` graph that the graph passes share.

The uses of a value of `onnx_ir` include those inside the subgraphs of If, Loop and Scan.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def is_op(node: "ir.Node", *op_types: str) -> bool:
    """Whether the node is one of these operators of the standard ONNX domain."""
    return node.op_type in op_types and node.domain in ("", "ai.onnx")


def array_of(value: "ir.Value | None") -> NDArray[Any] | None:
    """Returns the array of an initializer or a Constant node; None for a value that is computed."""
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def n_readers(value: "ir.Value") -> int:
    """Counts the uses of a value: by nodes, by nodes of subgraphs, and as an output of its graph."""
    return int(len(value.uses()) + value.is_graph_output())


def to_proto(model: "ir.Model") -> "onnx.ModelProto":
    """Returns the model as protobuf, without value infos of initializers, which have shapes of their own."""
    import onnx_ir as ir

    proto = ir.to_proto(model)
    infos = proto.graph.value_info
    for i in reversed(range(len(infos))):
        if infos[i].name in model.graph.initializers:
            del infos[i]
    return proto


def has_subgraphs(node: "ir.Node") -> bool:
    """Whether the node holds graphs (the branches of If, the bodies of Loop and Scan)."""
    import onnx_ir as ir

    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def store(value: "ir.Value", array: NDArray[Any]) -> None:
    """Replaces the array of an initializer; its name and its uses stay the same."""
    import onnx_ir as ir

    # Not `ascontiguousarray`, which turns a scalar into shape (1,).
    value.const_value = tensor = ir.tensor(np.array(array, order="C"), name=value.name)
    value.shape, value.type = tensor.shape, ir.TensorType(tensor.dtype)


def new_initializer(graph: "ir.Graph", name: str, array: NDArray[Any]) -> "ir.Value":
    """Adds an initializer to the graph and returns it."""
    import onnx_ir as ir

    value = ir.Value(name=name)
    store(value, array)
    graph.register_initializer(value)
    return value


def fresh_name(graph: "ir.Graph", base: str) -> str:
    """Returns `base`, or `base_1`, `base_2`, ... if there is a tensor of that name already."""
    taken = {*graph.initializers, *(i.name for i in graph.inputs)}
    taken.update(value.name for node in graph.all_nodes() for value in node.outputs)
    name, n = base, 0
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name

"""Small questions about an ONNX graph (as `onnx_ir`), and small changes to it, that the passes share.

A value of `onnx_ir` knows all its readers, those inside If, Loop and Scan included.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def is_op(node: "ir.Node", *op_types: str) -> bool:
    """Whether the node is one of ONNX's own operators of these names."""
    return node.op_type in op_types and node.domain in ("", "ai.onnx")


def array_of(value: "ir.Value | None") -> NDArray[Any] | None:
    """Returns what an initializer or a Constant node holds; None for a value that is computed."""
    import onnx_ir as ir

    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def n_readers(value: "ir.Value") -> int:
    """Counts how often a value is read: by nodes, by those of subgraphs, and as an output of its graph."""
    return int(len(value.uses()) + value.is_graph_output())


def to_proto(model: "ir.Model") -> "onnx.ModelProto":
    """Returns the model as protobuf, with no value info of initializers, which say their shapes themselves."""
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
    """Lets an initializer hold another array; its name and its readers stay."""
    import onnx_ir as ir

    # Not `ascontiguousarray`, which makes shape (1,) of a scalar.
    value.const_value = tensor = ir.tensor(np.array(array, order="C"), name=value.name)
    value.shape, value.type = tensor.shape, ir.TensorType(tensor.dtype)


def new_initializer(graph: "ir.Graph", name: str, array: NDArray[Any]) -> "ir.Value":
    """Adds an initializer, and returns its value."""
    import onnx_ir as ir

    value = ir.Value(name=name)
    store(value, array)
    graph.register_initializer(value)
    return value


def fresh_name(graph: "ir.Graph", wish: str) -> str:
    """Returns `wish`, or `wish_1`, `wish_2`, ... if a tensor is called so already."""
    taken = {*graph.initializers, *(i.name for i in graph.inputs)}
    taken.update(value.name for node in graph.all_nodes() for value in node.outputs)
    name, n = wish, 0
    while name in taken:
        n += 1
        name = f"{wish}_{n}"
    return name

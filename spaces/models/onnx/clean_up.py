"""Brings any ONNX graph into the form that stages and evaluators expect; what it computes stays the same."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spaces.models.onnx.fold_batch_norm import fold_batch_norm
from spaces.models.onnx.fold_constants import fold_constants
from spaces.models.onnx.graph import (
    all_nodes,
    drop_unused,
    initializer_arrays,
    is_op,
    rename_uses,
    replace_all,
    uses,
)

if TYPE_CHECKING:
    import onnx


def tidy(proto: "onnx.ModelProto") -> None:
    """Changes the model in place: constants are initializers, BatchNormalization is folded, every node has a name.

    Initializers are no inputs, Identity and inference-mode Dropout are gone, names of nodes are unique, notes
    that an exporter left (source lines, paths) are dropped, and shapes are inferred.

    Args:
        proto: A checked ONNX model.
    """
    import onnx

    _inputs_without_initializers(proto.graph)
    fold_constants(proto)
    _drop_passthrough(proto.graph)
    fold_batch_norm(proto)
    _drop_notes(proto)
    _name_nodes(proto.graph)
    del proto.graph.value_info[:]
    proto.CopyFrom(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def _inputs_without_initializers(graph: "onnx.GraphProto") -> None:
    """Old files list every initializer as an input, which would let a caller override it."""
    initializers = {i.name for i in graph.initializer}
    replace_all(graph.input, [i for i in graph.input if i.name not in initializers])


def _drop_passthrough(graph: "onnx.GraphProto") -> None:
    constants = initializer_arrays(graph)
    outputs = {o.name for o in graph.output}
    fixed = outputs | set(constants) | {i.name for i in graph.input}
    makers = {name: node for node in graph.node for name in node.output}
    counts = uses(graph)
    for node in graph.node:
        if not _passes_through(node, counts, constants):
            continue
        before, after = node.input[0], node.output[0]
        if after not in outputs:
            rename_uses(graph, after, before)
        elif before not in fixed and before in makers:
            maker = makers[before]
            maker.output[list(maker.output).index(before)] = after
            rename_uses(graph, before, after)
            makers[after] = maker
        else:
            continue
        del node.output[:]
    replace_all(graph.node, [n for n in graph.node if n.output])
    drop_unused(graph)


def _passes_through(
    node: "onnx.NodeProto", counts: Mapping[str, int], constants: Mapping[str, object]
) -> bool:
    if is_op(node, "Identity"):
        return True
    if not is_op(node, "Dropout") or any(counts[name] for name in node.output[1:]):
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    return not training or (training in constants and not constants[training])


def _drop_notes(proto: "onnx.ModelProto") -> None:
    proto.doc_string = proto.graph.doc_string = ""
    for message in (proto, proto.graph, *all_nodes(proto.graph), *proto.graph.initializer):
        message.doc_string = ""
        del message.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]


def _name_nodes(graph: "onnx.GraphProto") -> None:
    taken: set[str] = set()
    for node in graph.node:
        wish = node.name or f"{node.op_type}_{node.output[0]}"
        name, n = wish, 0
        while name in taken:
            n += 1
            name = f"{wish}_{n}"
        node.name = name
        taken.add(name)

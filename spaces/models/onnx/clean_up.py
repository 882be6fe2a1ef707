"""Graph clean-up passes: the form that stages and evaluators expect, with the same outputs."""

from typing import TYPE_CHECKING

from spaces.models.onnx.flatten_biases import flatten_biases
from spaces.models.onnx.fold_batch_norm import fold_batch_norm
from spaces.models.onnx.fold_constants import fold_constants
from spaces.models.onnx.graph import array_of, is_op

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def clean_up(proto: "onnx.ModelProto") -> None:
    """Changes the model in place: constants are initializers, BatchNormalization is folded, every node has a name.

    Model-local functions are inlined, initializers are removed from the inputs, Identity and inference-mode
    Dropout are removed, a Gemm's bias gets one axis, node names are made unique, an exporter's metadata (source
    lines, paths) is dropped, and shapes are inferred.

    Args:
        proto: A checked ONNX model.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes import common

    model = ir.from_proto(proto)
    ir.passes.Sequential(
        common.InlinePass(), common.RemoveUnusedOpsetsPass(), common.RemoveInitializersFromInputsPass()
    )(model)
    fold_constants(model)
    _remove_pass_through(model)
    fold_batch_norm(model)
    flatten_biases(model)
    ir.passes.Sequential(common.ClearMetadataAndDocStringPass(), common.NameFixPass(_Names()))(model)
    _clear_values(model)
    proto.CopyFrom(ir.to_proto(model))
    del proto.graph.value_info[:]
    proto.CopyFrom(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def _clear_values(model: "ir.Model") -> None:
    """Drops what an exporter noted at values: `ClearMetadataAndDocStringPass` clears nodes and graphs only."""
    graphs = [model.graph, *model.graph.subgraphs()]
    given = [value for graph in graphs for value in (*graph.inputs, *graph.initializers.values())]
    for value in (*given, *(output for node in model.graph.all_nodes() for output in node.outputs)):
        value.metadata_props.clear()
        value.doc_string = None


class _Names:
    """Names for `NameFixPass`: a nameless node is named after its output, which is stable between exports."""

    def generate_node_name(self, node: "ir.Node") -> str:
        return node.name or f"{node.op_type}_{node.outputs[0].name}"

    def generate_value_name(self, value: "ir.Value") -> str:
        return value.name or "value"


def _remove_pass_through(model: "ir.Model") -> None:
    """Removes pass-through nodes (Identity, inference-mode Dropout) of the main graph.

    `IdentityEliminationPass` is not used: it lets a branch of If return an outer value, which onnxruntime
    refuses, and gives two outputs one name (onnx_ir 1.1).
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    for node in model.graph:
        if not _is_pass_through(node):
            continue
        before, after = node.inputs[0], node.outputs[0]
        assert before is not None
        if after.is_graph_output():
            if before.producer() is None or before.is_graph_output():
                continue
            before.name = after.name
        after.replace_all_uses_with(before, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)


def _is_pass_through(node: "ir.Node") -> bool:
    if is_op(node, "Identity"):
        return True
    if not is_op(node, "Dropout") or any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    value = array_of(training)
    return training is None or (value is not None and not value)

"""Types of the tensors that onnx cannot infer: those of contrib operators and of some functions."""

from typing import TYPE_CHECKING

from spaces.models.onnx.ort_session import ort_session

if TYPE_CHECKING:
    import onnx


def add_missing_types(proto: "onnx.ModelProto") -> None:
    """Adds, in place, element types (and shapes, where known) of the main graph's tensors that have none.

    onnx has no type inference for operators of other domains, and stops at operators that it cannot expand;
    onnxruntime infers a type for every tensor when it loads a model. A model that it cannot load is left as
    it is.

    Args:
        proto: A model after onnx's shape inference.
    """
    import onnx

    graph = proto.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    typed = {v.name for v in values if v.type.tensor_type.elem_type or not v.type.HasField("tensor_type")}
    missing = [name for node in graph.node for name in node.output if name and name not in typed]
    if not missing:
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    try:
        session = ort_session(probe, optimize=False)
    except Exception:  # onnxruntime's exceptions share no base of their own
        return
    codes = dict(onnx.TensorProto.DataType.items())
    for output in session.get_outputs():
        kind = output.type.removeprefix("tensor(").removesuffix(")").upper()
        if output.name in missing and kind in codes:  # neither a sequence nor optional
            value = onnx.helper.make_tensor_value_info(output.name, codes[kind], output.shape or None)
            graph.value_info.append(value)

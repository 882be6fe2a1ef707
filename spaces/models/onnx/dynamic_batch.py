"""Makes a fixed batch axis free, where the graph allows it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError
from spaces.models.onnx.graph import array_of, fresh_name, is_op, new_initializer
from spaces.models.onnx.opset import run
from spaces.stages.artifact import InputSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

BATCH = "batch"
_FIRST_IR_WITHOUT_THEM = 4  # before, every initializer had to be an input


def free_batch(proto: "onnx.ModelProto", spec: InputSpec, path: Path) -> "onnx.ModelProto":
    """Returns the model with a free batch axis; the same model if the axis is free already.

    Where a batch size is written into a Reshape, it is replaced by "as it comes". The result is then compared
    with the original, example by example.

    Args:
        proto: A checked ONNX model.
        spec: Its one input.
        path: The file, for the message.

    Raises:
        InputError: The batch size is built into the graph.
    """
    value = next(i for i in proto.graph.input if i.name == spec.name)
    size = value.type.tensor_type.shape.dim[0].dim_value
    if size == 0:
        return proto
    freed = _freed(proto, spec, size)
    try:
        same = _same(proto, freed, spec, size)
    except Exception as error:  # onnxruntime raises kinds of its own
        raise InputError(_message(path, size)) from error
    if not same:
        raise InputError(_message(path, size))
    return freed


def _message(path: Path, size: int) -> str:
    return (
        f"{path}: the batch size {size} is built into the graph, and other sizes do not work. "
        "Export the network again with a free (dynamic) batch axis"
    )


def _freed(proto: "onnx.ModelProto", spec: InputSpec, size: int) -> "onnx.ModelProto":
    """Frees the first axis of input and output; shapes in between were inferred for the old size."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveInitializersFromInputsPass

    model = ir.from_proto(proto)
    RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version, _FIRST_IR_WITHOUT_THEM)
    _open_reshapes(model.graph, size)
    freed = ir.to_proto(model)
    del freed.graph.value_info[:]
    for value in (*(i for i in freed.graph.input if i.name == spec.name), *freed.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].dim_param = BATCH
    return freed


def _open_reshapes(graph: "ir.Graph", size: int) -> None:
    """Writes 0 ("copy this axis") where a Reshape of something computed begins with the batch size."""
    for node in graph:
        if not is_op(node, "Reshape") or node.attributes.get_int("allowzero", 0):
            continue
        value = array_of(node.inputs[1]) if array_of(node.inputs[0]) is None else None
        if value is not None and value.size and value[0] == size:
            shape = np.concatenate([[0], value[1:]]).astype(np.int64)
            name = fresh_name(graph, f"{node.outputs[0].name}.shape")
            node.replace_input_with(1, new_initializer(graph, name, shape))


def _same(proto: "onnx.ModelProto", freed: "onnx.ModelProto", spec: InputSpec, size: int) -> bool:
    """Compares a batch of twice the size, run at once, with the original run twice; and a batch of one."""
    x = np.random.default_rng(0).standard_normal((2 * size, *spec.shape)).astype(np.float32)
    wanted = np.concatenate([run(proto, spec, x[:size]), run(proto, spec, x[size:])])
    got, first = run(freed, spec, x), run(freed, spec, x[:1])
    return got.shape == wanted.shape and _close(got, wanted) and _close(first, wanted[:1])


def _close(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    return np.allclose(got, wanted, rtol=1e-3, atol=1e-5)

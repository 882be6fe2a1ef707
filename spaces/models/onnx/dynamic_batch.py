"""Makes a fixed batch axis dynamic, where the graph allows it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError
from spaces.models.onnx.graph import array_of, fresh_name, is_op, new_initializer
from spaces.models.onnx.opset import run
from spaces.stages.artifact import InputSpec
from spaces.stages.inputs import each

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

BATCH = "batch"
_FIRST_IR_VERSION = 4  # older versions require that every initializer is an input


def free_batch(proto: "onnx.ModelProto", spec: InputSpec, path: Path) -> "onnx.ModelProto":
    """Returns the model with a dynamic batch axis; the same model if the axis is dynamic already.

    A constant batch size in the shape of a Reshape is replaced by 0, which copies the input's axis. The
    result is then compared with the original, example by example.

    Args:
        proto: A checked ONNX model.
        spec: Its inputs.
        path: The file, for the message.

    Raises:
        InputError: The batch size is built into the graph.
    """
    names = {tensor.name for tensor in spec.tensors}
    sizes = {i.type.tensor_type.shape.dim[0].dim_value for i in proto.graph.input if i.name in names} - {0}
    if not sizes:
        return proto
    if len(sizes) > 1:
        raise InputError(
            f"{path}: the inputs have different batch sizes: {', '.join(map(str, sorted(sizes)))}"
        )
    (size,) = sizes
    freed = _freed(proto, spec, size)
    try:
        same = _same(proto, freed, spec, size)
    except Exception as error:  # onnxruntime has exceptions of its own
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
    """Makes the first axis of input and output dynamic, and drops the shapes inferred for the old size."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveInitializersFromInputsPass

    model = ir.from_proto(proto)
    RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version, _FIRST_IR_VERSION)
    _open_reshapes(model.graph, size)
    freed = ir.to_proto(model)
    del freed.graph.value_info[:]
    names = {tensor.name for tensor in spec.tensors}
    for value in (*(i for i in freed.graph.input if i.name in names), *freed.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].dim_param = BATCH
    return freed


def _open_reshapes(graph: "ir.Graph", size: int) -> None:
    """Replaces a leading batch size in the shapes of Reshape nodes by 0, which copies the input's axis."""
    for node in graph:
        if not is_op(node, "Reshape") or node.attributes.get_int("allowzero", 0):
            continue
        value = array_of(node.inputs[1]) if array_of(node.inputs[0]) is None else None
        if value is not None and value.size and value[0] == size:
            shape = np.concatenate([[0], value[1:]]).astype(np.int64)
            name = fresh_name(graph, f"{node.outputs[0].name}.shape")
            node.replace_input_with(1, new_initializer(graph, name, shape))


def _same(proto: "onnx.ModelProto", freed: "onnx.ModelProto", spec: InputSpec, size: int) -> bool:
    """Compares batches of `2 * size` and of 1 with the original model, which runs batches of `size`."""
    x = spec.noise(2 * size)
    halves = (each(lambda array: array[:size], x), each(lambda array: array[size:], x))
    expected = np.concatenate([run(proto, spec, half) for half in halves])
    actual, first = run(freed, spec, x), run(freed, spec, each(lambda array: array[:1], x))
    return actual.shape == expected.shape and _close(actual, expected) and _close(first, expected[:1])


def _close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return np.allclose(actual, expected, rtol=1e-3, atol=1e-5)

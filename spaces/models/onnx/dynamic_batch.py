"""Makes a fixed batch axis dynamic, where the graph allows it."""

from collections.abc import Mapping
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
        InputError: The batch size is built into the graph, or the examples are on another axis of an input.
    """
    names = {tensor.name for tensor in spec.tensors}
    sizes = {i.name: i.type.tensor_type.shape.dim[0].dim_value for i in proto.graph.input if i.name in names}
    fixed = set(sizes.values()) - {0}
    if not fixed:
        return proto
    if len(fixed) > 1:
        raise InputError(_message(path, sizes))
    (size,) = fixed
    freed = _freed(proto, spec, size)
    try:
        same = _same(proto, freed, spec, size)
    except Exception as error:  # onnxruntime has exceptions of its own
        raise InputError(_message(path, sizes)) from error
    if not same:
        raise InputError(_message(path, sizes))
    return freed


def _message(path: Path, sizes: Mapping[str, int]) -> str:
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{size or 'an open size'} in {name}" for name, size in sizes.items())
        return (
            f"{path}: the first axis of every input must be that of the examples, but has {listed}. Where it is another one, e.g. the layers of "
            "a recurrent state, export the network with a transposed input"
        )
    return (
        f"{path}: the batch size {next(iter(sizes.values()))} is built into the graph, and other sizes do not work. "
        "Export the network again with a free (dynamic) batch axis"
    )


def _freed(proto: "onnx.ModelProto", spec: InputSpec, size: int) -> "onnx.ModelProto":
    """Makes the first axis of inputs, and the first one of an output that has this size, dynamic, and drops the shapes inferred for the old size."""
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
        axes = value.type.tensor_type.shape.dim
        is_input = value.name in names
        axis = 0 if is_input else next((i for i, axis in enumerate(axes) if axis.dim_value == size), 0)
        if axes:
            axes[axis].dim_param = BATCH
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
    halves = [run(proto, spec, each(lambda array, rows=rows: array[rows], x)) for rows in _halves(size)]  # type: ignore[misc]
    actual, first = run(freed, spec, x), run(freed, spec, each(lambda array: array[:1], x))
    for axis, length in enumerate(halves[0].shape):  # that of the examples: (n, ...) or (steps, n, ...)
        expected = np.concatenate(halves, axis)
        if length == size and actual.shape == expected.shape:
            return _close(actual, expected) and _close(first, expected.take([0], axis))
    return False


def _halves(size: int) -> tuple[slice, slice]:
    return slice(size), slice(size, None)


def _close(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return actual.shape == expected.shape and np.allclose(actual, expected, rtol=1e-3, atol=1e-5)

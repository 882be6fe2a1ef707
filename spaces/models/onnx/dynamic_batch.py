"""Makes a fixed batch axis free, where the graph allows it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import InputError
from spaces.models.onnx.graph import attribute, initializer_arrays, is_op, set_initializer
from spaces.models.onnx.opset import run
from spaces.stages.artifact import InputSpec

if TYPE_CHECKING:
    import onnx

BATCH = "batch"


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
    freed = type(proto).FromString(proto.SerializeToString())
    _open_axis(freed, spec)
    _open_reshapes(freed, size)
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


def _open_axis(proto: "onnx.ModelProto", spec: InputSpec) -> None:
    """Frees the first axis of input and output; shapes in between were inferred for the old size."""
    del proto.graph.value_info[:]
    for value in (*(i for i in proto.graph.input if i.name == spec.name), *proto.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].dim_param = BATCH


def _open_reshapes(proto: "onnx.ModelProto", size: int) -> None:
    """Writes 0 ("copy this axis") where a Reshape of something computed begins with the batch size."""
    graph = proto.graph
    constants = initializer_arrays(graph)
    made_by_constant = {n.output[0]: n for n in graph.node if is_op(n, "Constant")}
    for node in graph.node:
        if not is_op(node, "Reshape") or attribute(node, "allowzero", 0):
            continue
        data, shape = node.input
        if data in constants or data in made_by_constant:
            continue
        value = constants.get(shape)
        if value is None and shape in made_by_constant:
            value = _constant_value(made_by_constant[shape])
        if value is not None and value.size and value[0] == size:
            name = f"{node.output[0]}.shape"
            set_initializer(graph, name, np.concatenate([[0], value[1:]]).astype(np.int64))
            node.input[1] = name


def _constant_value(node: "onnx.NodeProto") -> NDArray[Any] | None:
    import onnx

    tensor = attribute(node, "value")
    if tensor is None:
        return None
    value: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return value


def _same(proto: "onnx.ModelProto", freed: "onnx.ModelProto", spec: InputSpec, size: int) -> bool:
    """Compares a batch of twice the size, run at once, with the original run twice; and a batch of one."""
    x = np.random.default_rng(0).standard_normal((2 * size, *spec.shape)).astype(np.float32)
    wanted = np.concatenate([run(proto, spec, x[:size]), run(proto, spec, x[size:])])
    got, first = run(freed, spec, x), run(freed, spec, x[:1])
    return got.shape == wanted.shape and _close(got, wanted) and _close(first, wanted[:1])


def _close(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    return np.allclose(got, wanted, rtol=1e-3, atol=1e-5)

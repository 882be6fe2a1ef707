"""Gives every constant Gemm bias the shape `(n_outputs,)`, which quantizers and cost models expect."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.graph import array_of, fresh_name, is_op, n_readers, new_initializer, store

if TYPE_CHECKING:
    import onnx_ir as ir


def flatten_biases(model: "ir.Model") -> None:
    """Repeats or reshapes, in place, a bias that is the same for every row: shapes `()`, `(1,)`, `(1, 1)`, `(1, N)`.

    A bias that differs between rows, `(M, 1)` or `(M, N)`, stays as it is. A bias that has other readers, too,
    is copied. Conv and ConvTranspose need no pass: only `(n_outputs,)` is valid for them.

    Args:
        model: A model whose constants are initializers.
    """
    for node in model.graph:
        if not is_op(node, "Gemm") or len(node.inputs) < 3:
            continue
        bias, array, n_outputs = node.inputs[2], array_of(node.inputs[2]), _n_outputs(node)
        if bias is None or array is None or not n_outputs or array.shape == (n_outputs,):
            continue
        if array.size != 1 and array.shape != (1, n_outputs):
            continue
        _replace(model.graph, node, bias, np.broadcast_to(array.reshape(-1), (n_outputs,)))


def _n_outputs(gemm: "ir.Node") -> int:
    weight = array_of(gemm.inputs[1])
    if weight is None or weight.ndim != 2:
        return 0
    return int(weight.shape[0 if gemm.attributes.get_int("transB", 0) else 1])


def _replace(graph: "ir.Graph", gemm: "ir.Node", bias: "ir.Value", array: NDArray[Any]) -> None:
    if n_readers(bias) == 1 and bias.is_initializer():
        store(bias, array)
    else:
        name = fresh_name(graph, f"{bias.name}_of_{gemm.outputs[0].name}")
        gemm.replace_input_with(2, new_initializer(graph, name, array))

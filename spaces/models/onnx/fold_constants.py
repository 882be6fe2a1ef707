"""Computes every node whose inputs are all constant, so that weights stand in the graph as initializers."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.graph import (
    drop_unused,
    initializer_arrays,
    is_op,
    rename_uses,
    replace_all,
    set_initializer,
    subgraphs,
    uses,
)

if TYPE_CHECKING:
    import onnx

RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)
# A node that makes much from little (Expand, ConstantOfShape, Tile) stays a node above this.
GROWTH_LIMIT_BYTES = 2**20


def fold_constants(proto: "onnx.ModelProto") -> None:
    """Replaces constant nodes (Constant, Transpose of a weight, DequantizeLinear of one, ...) by initializers, in place.

    A result that stands for a weight (as many elements, and the weight is used nowhere else) keeps the
    weight's name, because layers are known by it.

    Args:
        proto: An ONNX model without initializers among its inputs.
    """
    graph = proto.graph
    constants = initializer_arrays(graph)
    outputs = {o.name for o in graph.output}
    counts = uses(graph)
    kept = []
    for node in graph.node:
        values = None if outputs & set(node.output) else _evaluate(node, constants, proto)
        if values is None:
            kept.append(node.name)
            continue
        donor = _donor(node, values, constants)
        for name, value in zip(node.output, values, strict=True):
            final = donor if donor is not None and counts[donor] == 1 else name
            if final != name:
                rename_uses(graph, name, final)
                counts[final] = counts[name]
            constants[final] = value
            set_initializer(graph, final, value)
        del node.output[:]
    replace_all(graph.node, [n for n in graph.node if n.output])
    drop_unused(graph)


def _evaluate(
    node: "onnx.NodeProto", constants: dict[str, NDArray[Any]], proto: "onnx.ModelProto"
) -> list[NDArray[Any]] | None:
    """Returns the node's outputs; None if they are not constant, or not cheap, or not computable here."""
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    foldable = node.domain in ("", "ai.onnx") and not is_op(node, *RANDOM) and not any(subgraphs(node))
    if not foldable or any(name not in constants for name in names) or not all(node.output):
        return None
    arrays = {name: constants[name] for name in names}
    model = _model_of(node, arrays, proto)
    try:
        results = ReferenceEvaluator(model).run(None, arrays)
    except Exception:  # the reference implementation lacks the operator or the type: the node simply stays
        return None
    if not all(isinstance(r, np.ndarray | np.generic) for r in results):
        return None
    values = [np.asarray(r) for r in results]
    grown = sum(v.nbytes for v in values) - sum(a.nbytes for a in arrays.values())
    return None if grown > GROWTH_LIMIT_BYTES else values


def _model_of(
    node: "onnx.NodeProto", arrays: dict[str, NDArray[Any]], proto: "onnx.ModelProto"
) -> "onnx.ModelProto":
    import onnx

    helper = onnx.helper
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in arrays.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "node", inputs, outputs)
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def _donor(
    node: "onnx.NodeProto", values: list[NDArray[Any]], constants: dict[str, NDArray[Any]]
) -> str | None:
    """Returns the one weight among the inputs that the result stands for, or None."""
    names = [name for name in node.input if name]
    if not names or len(values) != 1:
        return None
    largest = max(names, key=lambda name: constants[name].size)
    value = values[0]
    same = value.size == constants[largest].size and value.size > 1 and value.ndim > 0
    return largest if same and np.issubdtype(value.dtype, np.floating) else None

"""Constant folding: computes every node whose inputs are constant, so that weights become initializers."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.graph import array_of, has_subgraphs, is_op, n_readers, new_initializer, store

if TYPE_CHECKING:
    import onnx_ir as ir

RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)
# A node whose result exceeds its inputs by more than this (Expand, ConstantOfShape, Tile) is not folded.
GROWTH_LIMIT_BYTES = 2**20


def fold_constants(model: "ir.Model") -> None:
    """Replaces constant nodes (Constant, Transpose of a weight, DequantizeLinear of one, ...) by initializers, in place.

    A result that replaces a weight (as many elements, and nothing else reads the weight) keeps the weight's
    name, because it is the name of the layer. `onnxscript.optimizer.fold_constants` is not used, because it
    names the result after the tensor, and limits the size of a result instead of its growth over its inputs.

    Args:
        model: A model without initializers among its inputs.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    for node in graph:
        is_output = any(value.is_graph_output() for value in node.outputs)
        arrays = None if is_output else _evaluate(node, graph.opset_imports)
        if arrays is None:
            continue
        donor = _donor(node, arrays)
        for value, array in zip(node.outputs, arrays, strict=True):
            if donor is None:
                final = new_initializer(graph, str(value.name), array)
            else:
                store(final := donor, array)
            value.replace_all_uses_with(final)
        graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)


def _evaluate(node: "ir.Node", opsets: dict[str, int]) -> list[NDArray[Any]] | None:
    """Returns the node's outputs; None if they are not constant, too large, or cannot be computed."""
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    foldable = node.domain in ("", "ai.onnx") and not is_op(node, *RANDOM) and not has_subgraphs(node)
    if not foldable or not all(value.name for value in node.outputs):
        return None
    arrays = {str(value.name): array_of(value) for value in node.inputs if value is not None}
    if any(array is None for array in arrays.values()):
        return None
    try:
        with np.errstate(all="ignore"):  # e.g. the logarithm of a zero, which a later node masks
            results = ReferenceEvaluator(ir.to_proto(node), opsets=opsets).run(None, arrays)
    except Exception:  # the reference implementation lacks the operator or the type: the node stays
        return None
    if not all(isinstance(r, np.ndarray | np.generic) and r.dtype != object for r in results):
        return None
    values = [np.asarray(r) for r in results]
    grown = sum(v.nbytes for v in values) - sum(a.nbytes for a in arrays.values() if a is not None)
    return None if grown > GROWTH_LIMIT_BYTES else values


def _donor(node: "ir.Node", arrays: list[NDArray[Any]]) -> "ir.Value | None":
    """Returns the weight among the inputs whose name the result keeps (see `fold_constants`), or None."""
    read = [value for value in node.inputs if value is not None and value.const_value is not None]
    if not read or len(arrays) != 1:
        return None
    largest = max(read, key=lambda value: value.const_value.size if value.const_value else 0)
    assert largest.const_value is not None
    array = arrays[0]
    same = array.size == largest.const_value.size and array.size > 1 and array.ndim > 0
    replaceable = same and np.issubdtype(array.dtype, np.floating) and n_readers(largest) == 1
    return largest if replaceable else None

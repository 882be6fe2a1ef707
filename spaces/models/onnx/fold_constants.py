"""Computes every node whose inputs are all constant, so that weights stand in the graph as initializers."""

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
# A node that makes much from little (Expand, ConstantOfShape, Tile) stays a node above this.
GROWTH_LIMIT_BYTES = 2**20


def fold_constants(model: "ir.Model") -> None:
    """Replaces constant nodes (Constant, Transpose of a weight, DequantizeLinear of one, ...) by initializers, in place.

    A result that stands for a weight (as many elements, and the weight is used nowhere else) keeps the
    weight's name, because layers are known by it. `onnxscript.optimizer.fold_constants` calls it by the tensor,
    and bounds what a result may take, not what it takes more than its inputs: so this pass is our own.

    Args:
        model: A model without initializers among its inputs.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    for node in graph:
        yields = any(value.is_graph_output() for value in node.outputs)
        arrays = None if yields else _evaluate(node, graph.opset_imports)
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
    """Returns the node's outputs; None if they are not constant, or not cheap, or not computable here."""
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    foldable = node.domain in ("", "ai.onnx") and not is_op(node, *RANDOM) and not has_subgraphs(node)
    if not foldable or not all(value.name for value in node.outputs):
        return None
    arrays = {str(value.name): array_of(value) for value in node.inputs if value is not None}
    if any(array is None for array in arrays.values()):
        return None
    try:
        results = ReferenceEvaluator(ir.to_proto(node), opsets=opsets).run(None, arrays)
    except Exception:  # the reference implementation lacks the operator or the type: the node simply stays
        return None
    if not all(isinstance(r, np.ndarray | np.generic) and r.dtype != object for r in results):
        return None
    values = [np.asarray(r) for r in results]
    grown = sum(v.nbytes for v in values) - sum(a.nbytes for a in arrays.values() if a is not None)
    return None if grown > GROWTH_LIMIT_BYTES else values


def _donor(node: "ir.Node", arrays: list[NDArray[Any]]) -> "ir.Value | None":
    """Returns the one weight among the inputs that the result stands for and that nothing else reads, or None."""
    read = [value for value in node.inputs if value is not None and value.const_value is not None]
    if not read or len(arrays) != 1:
        return None
    largest = max(read, key=lambda value: value.const_value.size if value.const_value else 0)
    assert largest.const_value is not None
    array = arrays[0]
    same = array.size == largest.const_value.size and array.size > 1 and array.ndim > 0
    stands_for_it = same and np.issubdtype(array.dtype, np.floating) and n_readers(largest) == 1
    return largest if stands_for_it else None

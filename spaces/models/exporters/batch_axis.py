"""Makes one model with a dynamic batch axis out of two exports of a network that have different fixed ones."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from spaces.models.exporters.failure import UnfitError
from spaces.models.onnx.graph import array_of, fresh_name, is_op, new_initializer, to_proto

BATCH = "batch"


def with_batch_axis(
    first: onnx.ModelProto, second: onnx.ModelProto, sizes: tuple[int, int]
) -> onnx.ModelProto:
    """Returns `first` with every constant that the batch size decides computed from the input's batch size.

    Args:
        first: The export for batches of `sizes[0]`; its first axis of inputs and outputs becomes dynamic.
        second: The export for batches of `sizes[1]`: the same nodes, other constants.
        sizes: The two batch sizes.

    Raises:
        UnfitError: The two differ in more than whole numbers that are linear in the batch size.
    """
    models = ir.from_proto(first), ir.from_proto(second)
    for model in models:
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _check_nodes(*(model.graph for model in models))
    graph, other = (model.graph for model in models)
    batch: ir.Value | None = None
    for node, twin in zip(list(graph), list(other), strict=True):
        for position, (value, changed) in enumerate(zip(node.inputs, twin.inputs, strict=True)):
            linear = _linear(array_of(value), array_of(changed), sizes)
            if linear is None:
                continue
            if is_op(node, "Reshape") and position == 1 and _one_open(*linear):
                value_now = _constant(graph, np.where(linear[1] != 0, -1, linear[0]))
            else:
                batch = batch or _batch_size(graph)
                value_now = _computed(graph, batch, *linear)
            node.replace_input_with(position, value_now)
    made = to_proto(models[0])
    _free(made.graph, second.graph, sizes)
    return made


def _check_nodes(graph: ir.Graph, other: ir.Graph) -> None:
    """Raises UnfitError unless nodes, their attributes and how they are connected are the same."""
    names: dict[str | None, str | None] = dict(
        zip(*([i.name for i in g.inputs] for g in (graph, other)), strict=True)
    )
    if len(graph) != len(other):
        raise UnfitError("its operations depend on the batch size")
    for node, twin in zip(graph, other, strict=True):
        known = (node.op_type, node.domain, len(node.inputs), len(node.outputs)) == (
            twin.op_type, twin.domain, len(twin.inputs), len(twin.outputs)
        )  # fmt: skip
        mine, its = (
            [ir.to_proto(a).SerializeToString() for _, a in sorted(n.attributes.items())]
            for n in (node, twin)
        )
        computed = [
            (a, b) for a, b in zip(node.inputs, twin.inputs, strict=False) if a is not None and b is not None
        ]
        joined = all(names[a.name] == b.name for a, b in computed if a.name in names)
        if not known or mine != its or not joined:
            raise UnfitError(f"the batch size decides how its {node.op_type} works")
        names.update(zip([o.name for o in node.outputs], [o.name for o in twin.outputs], strict=True))


def _linear(
    array: NDArray[Any] | None, changed: NDArray[Any] | None, sizes: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Returns `(base, slope)` of a constant `base + slope * batch`; None if it does not depend on the batch.

    Raises:
        UnfitError: It depends on the batch in another way.
    """
    if array is None or changed is None or np.array_equal(array, changed, equal_nan=array.dtype.kind == "f"):
        return None
    message = "the batch size is built into its constants"
    if array.shape != changed.shape or array.dtype != np.int64 or changed.dtype != np.int64:
        raise UnfitError(message)
    slope, rest = np.divmod(changed - array, sizes[1] - sizes[0])
    if rest.any():
        raise UnfitError(message)
    return array - slope * sizes[0], slope


def _one_open(base: NDArray[np.int64], slope: NDArray[np.int64]) -> bool:
    """Whether -1 can stand for the one number of a shape that depends on the batch."""
    return (
        int(np.count_nonzero(slope)) == 1
        and not ((base == -1) & (slope == 0)).any()
        and not base[slope != 0].any()
    )


def _constant(graph: ir.Graph, array: NDArray[np.int64]) -> ir.Value:
    return new_initializer(graph, fresh_name(graph, "shape"), array)


def _batch_size(graph: ir.Graph) -> ir.Value:
    """Adds nodes that give the batch size, before all others: a scalar int64."""
    shape = ir.node("Shape", [graph.inputs[0]], name="batch_shape")
    size = ir.node("Gather", [shape.outputs[0], _constant(graph, np.array(0))], name="batch_size")
    graph.insert_before(graph[0], [shape, size])
    shape.outputs[0].name, size.outputs[0].name = (
        fresh_name(graph, name) for name in ("batch_shape", "batch_size")
    )
    return size.outputs[0]


def _computed(
    graph: ir.Graph, batch: ir.Value, base: NDArray[np.int64], slope: NDArray[np.int64]
) -> ir.Value:
    """Adds nodes that give `base + slope * batch`, right after those of the batch size."""
    product = ir.node("Mul", [batch, _constant(graph, slope)])
    total = ir.node("Add", [product.outputs[0], _constant(graph, base)])
    producer = batch.producer()
    assert producer is not None
    graph.insert_after(producer, [product, total])
    product.outputs[0].name = fresh_name(graph, "of_batch")
    total.outputs[0].name = fresh_name(graph, "of_batch")
    product.name, total.name = product.outputs[0].name, total.outputs[0].name
    return total.outputs[0]


def _free(graph: onnx.GraphProto, other: onnx.GraphProto, sizes: tuple[int, int]) -> None:
    """Makes axes of inputs and outputs that differ between the two exports dynamic."""
    del graph.value_info[:]
    for mine, its in ((graph.input, other.input), (graph.output, other.output)):
        for value, twin in zip(mine, its, strict=True):
            axes = zip(value.type.tensor_type.shape.dim, twin.type.tensor_type.shape.dim, strict=True)
            for i, (axis, changed) in enumerate(axes):
                if axis.dim_value != changed.dim_value:
                    axis.dim_param = BATCH if axis.dim_value == sizes[0] else f"{value.name}_{i}"

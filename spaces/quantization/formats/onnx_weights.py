"""Puts packed weights into an ONNX model, in a form that plain onnxruntime runs.

Integers on a grid become INT4, INT8 or INT16 tensors with a DequantizeLinear, by channel or by blocks of inputs. onnxruntime makes
one MatMulNBits kernel of it and a MatMul behind it, which is several times as fast as a DequantizeLinear of its own; a Gemm
is not fused, so it becomes a MatMul and an Add. By default that kernel rounds activations to 8 bits for each block of inputs (its
session option `session.qdq_matmulnbits_accuracy_level`, 4; 0 computes in float). Weights on no grid are stored as the
floats that they decode to, and recorded as simulated.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError, unknown_name
from spaces.models.layers import Layer, layers, recurrent_layers
from spaces.models.onnx.opset import OPSET, to_opset
from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.packing.groups import GridWeight, Weight
from spaces.quantization.formats.stored import StoredWeight, record_stored
from spaces.stages.artifact import InputSpec

if TYPE_CHECKING:
    import onnx


def encode_layers(
    proto: "onnx.ModelProto",
    formats: Mapping[str, WeightFormat],
    importance: Mapping[str, Weight] | None = None,
) -> dict[str, Packed]:
    """Packs the weights of layers.

    Args:
        proto: A checked float model.
        formats: Layer name, that of its weight, to format.
        importance: Layer name to how much an error of each weight matters; see `WeightFormat.encode`.

    Raises:
        StageError: There is no such layer, or its weight does not fit the format.
    """
    from onnx import numpy_helper

    known = _layers(proto, formats)
    stored = {i.name: i for i in proto.graph.initializer}
    given = importance or {}
    return {
        name: form.encode(
            numpy_helper.to_array(stored[name]).astype(np.float32),
            known[name].weight_axis_out,
            given.get(name),
        )
        for name, form in formats.items()
    }


def with_packed_weights(proto: "onnx.ModelProto", packed: Mapping[str, Packed]) -> "onnx.ModelProto":
    """Returns the model with packed weights in place of its float weights, and their packed bytes in its metadata.

    Args:
        proto: A checked float model.
        packed: Layer name to packed weight.

    Raises:
        StageError: There is no such layer, or the weight has another shape.
    """
    import onnx

    _layers(proto, packed)
    made = onnx.ModelProto()
    made.CopyFrom(to_opset(proto, InputSpec.of_graph(proto.graph)))
    made.ir_version = max(made.ir_version, 10)  # the first with 4-bit integers
    editor = _Editor(made)
    record_stored(made, {name: editor.replace(name, weight) for name, weight in packed.items()})
    editor.insert_nodes()
    return made


def _layers(proto: "onnx.ModelProto", names: Iterable[str]) -> dict[str, Layer]:
    known = {layer.name: layer for layer in (*layers(proto), *recurrent_layers(proto))}
    for name in names:
        if name not in known:
            raise StageError(unknown_name("layer", name, known, "the weight formats"))
    return known


class _Editor:
    """Edits a model in place."""

    def __init__(self, proto: "onnx.ModelProto") -> None:
        self._graph = proto.graph
        self._has_blocks = any(o.domain in ("", "ai.onnx") and o.version >= OPSET for o in proto.opset_import)
        self._nodes: list[onnx.NodeProto] = []

    def replace(self, name: str, packed: Packed) -> StoredWeight:
        """Replaces one weight; returns the record of it."""
        stored = next(i for i in self._graph.initializer if i.name == name)
        if tuple(stored.dims) != packed.values.shape:
            raise StageError(f"{name} has the shape {tuple(stored.dims)}, not {packed.values.shape}")
        grid = packed.format.on_grid(packed) if self._has_blocks else None
        self._remove(name)
        names: tuple[str, ...] = ()
        if grid is None:
            names = (self._store(name, packed.values),)
        else:
            names = self._dequantized(name, grid, self._as_matmul(name, grid))
        options = asdict(packed.format)  # type: ignore[call-overload]  # formats are dataclasses
        return StoredWeight(packed.packed_bytes, names, packed.format.name, options, grid is None)

    def insert_nodes(self) -> None:
        """Puts the new nodes first, where all that they read is known."""
        rest = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*self._nodes, *rest])

    def _dequantized(self, name: str, grid: GridWeight, transposed: bool) -> tuple[str, ...]:
        """Adds the integers of a weight, and the nodes that make the weight of them; returns the initializers' names."""
        groups = grid.groups
        n_groups = len(groups.counts)
        blocked = groups.group != "tensor" and n_groups > 1
        as_rows = blocked and len(groups.shape) != 2
        axis = 0 if as_rows else groups.axis % len(groups.shape)

        def laid_out(values: NDArray[Any]) -> NDArray[Any]:
            """Returns one value for each group, as DequantizeLinear takes them."""
            if groups.group == "tensor":
                return values.reshape(())
            rows = values.reshape(-1, n_groups) if blocked else values
            return rows.T if blocked and (axis == 1) != transposed else rows

        integers = grid.integers if as_rows else groups.weight(grid.integers)
        kind = _integer_type(grid.bits, signed=grid.zero is None)
        parts = {
            "quantized": (integers.T if transposed else integers).astype(kind),
            "scale": laid_out(grid.scale),
        }
        if grid.zero is not None:
            parts["zero_point"] = laid_out(grid.zero).astype(kind)
        names = tuple(self._store(f"{name}_{part}", values) for part, values in parts.items())
        attributes = (
            {"axis": (1 - axis if blocked else axis) ^ transposed} if groups.group != "tensor" else {}
        )
        attributes |= {"block_size": groups.size} if blocked else {}
        flat = f"{name}_rows" if as_rows else name
        self._add("DequantizeLinear", names, flat, **attributes)
        if as_rows:
            self._from_rows(flat, name, grid)
        return names

    def _from_rows(self, rows: str, name: str, grid: GridWeight) -> None:
        """Adds the nodes from `(n_channels, n_inputs)` to the weight's shape."""
        shape, axis = grid.groups.shape, grid.groups.axis % len(grid.groups.shape)
        moved = [axis, *(i for i in range(len(shape)) if i != axis)]
        sizes = self._store(f"{name}_shape", np.array([shape[i] for i in moved], np.int64))
        if axis == 0:
            self._add("Reshape", (rows, sizes), name)
            return
        self._add("Reshape", (rows, sizes), f"{name}_moved")
        self._add("Transpose", (f"{name}_moved",), name, perm=[int(i) for i in np.argsort(moved)])

    def _as_matmul(self, name: str, grid: GridWeight) -> bool:
        """Turns the Gemms of a weight into MatMuls with an Add; returns whether the weight has to be transposed for it."""
        readers = [node for node in self._graph.node if name in node.input]
        if grid.groups.group == "tensor" or not all(_is_plain_gemm(node, name) for node in readers):
            return False
        transposed = [_attribute(node, "transB", 0) for node in readers]
        if len(set(transposed)) != 1:
            return False
        for node in readers:
            self._split_gemm(node)
        return bool(transposed[0])

    def _split_gemm(self, gemm: "onnx.NodeProto") -> None:
        from onnx import helper

        x, weight, *bias = gemm.input
        output = gemm.output[0]
        product = f"{output}_product" if bias and bias[0] else output
        nodes = [helper.make_node("MatMul", [x, weight], [product], name=gemm.name)]
        if product != output:
            nodes.append(helper.make_node("Add", [product, bias[0]], [output], name=f"{gemm.name}_bias"))
        at = next(i for i, node in enumerate(self._graph.node) if node.output[:1] == gemm.output[:1])
        rest = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*rest[:at], *nodes, *rest[at + 1 :]])

    def _add(self, op_type: str, inputs: Iterable[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        name = f"{output}_{op_type}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, **attributes))

    def _store(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _remove(self, name: str) -> None:
        for entries in (self._graph.initializer, self._graph.input, self._graph.value_info):
            for i in reversed([i for i, entry in enumerate(entries) if entry.name == name]):
                del entries[i]


def _integer_type(bits: int, *, signed: bool) -> Any:
    """Returns the narrowest of ONNX's types since opset 21 that holds integers of that many bits."""
    import ml_dtypes

    if bits <= 4:
        return ml_dtypes.int4 if signed else ml_dtypes.uint4
    return np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def _is_plain_gemm(node: "onnx.NodeProto", weight: str) -> bool:
    """Whether a node is a Gemm that only multiplies with this weight and adds a bias."""
    return (
        node.op_type == "Gemm"
        and list(node.input).index(weight) == 1
        and not _attribute(node, "transA", 0)
        and _attribute(node, "alpha", 1.0) == 1.0
        and _attribute(node, "beta", 1.0) == 1.0
    )


def _attribute(node: "onnx.NodeProto", name: str, default: float) -> float:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else (found.i if found.type == found.INT else found.f)

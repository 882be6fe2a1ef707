"""Shapes, dtypes and sizes of every tensor of an ONNX model at batch 1."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from evaluators.cost.graph.operators.nodes import Node
from spaces.errors import EvaluationError
from spaces.models.onnx.ort_session import ort_session

if TYPE_CHECKING:
    import onnx

_LARGE_BYTES = 1024
_BITS = {"float": 32, "double": 64, "bool": 8, "string": 0, "undefined": 0}


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        shape: Its shape at batch 1.
        dtype: ONNX's name in lower case: `float`, `float16`, `int8`, `uint4`, ...
        stored_bytes: Size in bytes if it does not follow from shape and dtype (sparse tensors), else None.
    """

    shape: tuple[int, ...]
    dtype: str
    stored_bytes: int | None = None

    @property
    def bits(self) -> int:
        """Bits per element in the file (4 for int4, although numpy uses a byte)."""
        return _bits(self.dtype)

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers of at most 16 bits, as quantized tensors are."""
        return self.dtype.lstrip("u").startswith("int") and self.bits <= 16

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Size in bytes, with sub-byte elements packed."""
        return -(-self.n_elements * self.bits // 8) if self.stored_bytes is None else self.stored_bytes


@cache
def _bits(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return _BITS[dtype] if dtype in _BITS else int(digits[0]) if digits else 0


def tensors_of(model: "onnx.ModelProto", nodes: Sequence[Node]) -> dict[str, Tensor]:
    """Returns every tensor of a model by name.

    Args:
        model: A model without subgraphs whose inputs have static shapes.
        nodes: Its nodes.

    Raises:
        EvaluationError: A shape follows neither from shape inference nor from running the model.
    """
    tensors = {i.name: Tensor(tuple(i.dims), _dtype(i.data_type)) for i in model.graph.initializer}
    for sparse in model.graph.sparse_initializer:
        tensors[sparse.values.name] = _sparse(sparse)
    inferred = inferred_shapes(model).graph
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        tensor = tensor_of(value)
        if tensor is not None:
            tensors.setdefault(value.name, tensor)
    producers = {name: node for node in nodes for name in node.outputs if name}
    missing = {name: node for name, node in producers.items() if name not in tensors}
    # onnx cannot infer shapes of onnxruntime's contrib operators (QLinearAdd, QGemm, ...); running them can.
    return tensors | _by_running(model, missing) if missing else tensors


def inferred_shapes(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Returns a copy with the shapes that onnx infers; the values of large stored tensors are missing in it.

    Raises:
        EvaluationError: Shapes contradict each other.
    """
    import onnx

    # Only the values of small tensors (shapes, axes) matter; the others would be copied three times.
    large = [(i, i.raw_data) for i in model.graph.initializer if len(i.raw_data) > _LARGE_BYTES]
    for stored, _ in large:
        stored.ClearField("raw_data")
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # onnx's InferenceError derives from Exception only
        raise EvaluationError(f"the shapes of the ONNX model cannot be inferred: {error}") from error
    finally:
        for stored, values in large:
            stored.raw_data = values


def tensor_of(value: "onnx.ValueInfoProto") -> Tensor | None:
    """Returns the tensor if its shape is fully known, else None."""
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or any(not d.HasField("dim_value") for d in dims):
        return None
    return Tensor(tuple(d.dim_value for d in dims), _dtype(tensor.elem_type))


def _sparse(sparse: "onnx.SparseTensorProto") -> Tensor:
    """Returns a sparse tensor; its size is that of its stored values and their indices."""
    values = Tensor(tuple(sparse.values.dims), _dtype(sparse.values.data_type))
    indices = Tensor(tuple(sparse.indices.dims), _dtype(sparse.indices.data_type))
    return Tensor(tuple(sparse.dims), values.dtype, values.n_bytes + indices.n_bytes)


@cache
def _dtype(code: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(code)).lower()


def _by_running(model: "onnx.ModelProto", missing: Mapping[str, Node]) -> dict[str, Tensor]:
    """Runs the model on zeros in onnxruntime and returns its outputs and the `missing` tensors."""
    import numpy as np
    import onnx
    import onnxruntime as ort

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    outputs = {o.name for o in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in missing if n not in outputs)
    try:
        session = ort_session(probe, optimize=False)
        feeds = {i.name: np.zeros(i.shape, _NUMPY.get(i.type, "float32")) for i in session.get_inputs()}
        values = session.run_with_ort_values(
            None, {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        )
        known = zip(session.get_outputs(), values, strict=True)
        return {o.name: Tensor(tuple(v.shape()), _ort_dtype(v.data_type())) for o, v in known}
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise EvaluationError(_not_found(missing, error)) from error


def _not_found(missing: Mapping[str, Node], error: Exception) -> str:
    name, node = next(iter(missing.items()))
    more = f" (and {len(missing) - 1} after it)" if len(missing) > 1 else ""
    return (
        f"the shape of {name!r}{more} cannot be found: onnx's shape inference stops at {node.op} "
        f"(node {node.name!r}), and onnxruntime cannot run it: {error}. Give the operator's outputs static shapes, "
        "or export the model with operators that onnxruntime has"
    )


_NUMPY = {
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def _ort_dtype(text: str) -> str:
    return text.removeprefix("tensor(").removesuffix(")")

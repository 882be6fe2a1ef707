"""Shapes, dtypes and sizes of every tensor of an ONNX model at batch 1."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.artifact import Artifact
from spaces.errors import EvaluationError

if TYPE_CHECKING:
    import onnx

_BITS = {"float": 32, "double": 64, "bool": 8, "string": 0, "undefined": 0}


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        shape: Its shape at batch 1.
        dtype: ONNX's name in lower case: `float`, `float16`, `int8`, `uint4`, ...
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def bits(self) -> int:
        """Bits an element takes in the file (4 for int4, although numpy keeps a byte)."""
        if self.dtype in _BITS:
            return _BITS[self.dtype]
        digits = re.search(r"\d+", self.dtype)
        return int(digits[0]) if digits else 0

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers of at most 16 bits, as quantized tensors are."""
        return self.dtype.lstrip("u").startswith("int") and self.bits <= 16

    @property
    def n_bytes(self) -> int:
        """Size in bytes, sub-byte elements packed."""
        return -(-math.prod(self.shape) * self.bits // 8)


def at_batch_one(artifact: Artifact) -> "onnx.ModelProto":
    """Parses the model, with its free axes set to one example of `artifact.input`; a fixed batch stays."""
    model = artifact.proto()
    stored = {i.name for i in model.graph.initializer}
    for value in model.graph.input:
        if value.name in stored:
            continue
        spec = (1, *artifact.input.shape)
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if dim.dim_value <= 0:
                dim.dim_value = spec[axis] if value.name == artifact.input.name and axis < len(spec) else 1
    # What the exporter noted for the free batch would be merged with what is inferred for batch 1.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def tensors_of(model: "onnx.ModelProto") -> dict[str, Tensor]:
    """Returns every tensor of `model` (from `at_batch_one`) by name.

    Raises:
        EvaluationError: A shape can be found neither by inference nor by running the model.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # its InferenceError is no subclass of anything more telling
        raise EvaluationError(f"the shapes of the ONNX model cannot be inferred: {error}") from error
    found = {i.name: Tensor(tuple(i.dims), _dtype(i.data_type)) for i in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        tensor = _tensor(value)
        if tensor is not None:
            found.setdefault(value.name, tensor)
    wanted = [name for node in model.graph.node for name in node.output if name]
    missing = [name for name in wanted if name not in found]
    # onnx does not know onnxruntime's own operators (QLinearAdd, QGemm, ...), but onnxruntime can tell.
    return found | _by_running(model, missing) if missing else found


def _tensor(value: "onnx.ValueInfoProto") -> Tensor | None:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or any(not d.HasField("dim_value") for d in dims):
        return None
    return Tensor(tuple(d.dim_value for d in dims), _dtype(tensor.elem_type))


def _dtype(code: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(code)).lower()


def _by_running(model: "onnx.ModelProto", names: Iterable[str]) -> dict[str, Tensor]:
    import numpy as np
    import onnx
    import onnxruntime as ort

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    outputs = {o.name for o in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in outputs)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    try:
        session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {i.name: np.zeros(i.shape, _NUMPY.get(i.type, "float32")) for i in session.get_inputs()}
        values = session.run_with_ort_values(
            None, {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise EvaluationError(f"the shapes of {', '.join(names)} cannot be found: {error}") from error
    known = zip(session.get_outputs(), values, strict=True)
    return {o.name: Tensor(tuple(v.shape()), _ort_dtype(v.data_type())) for o, v in known}


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

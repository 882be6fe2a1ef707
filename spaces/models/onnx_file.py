"""A user's own network as an ONNX file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.errors import InputError
from spaces.models.base import LoadContext, ModelSource
from spaces.models.checkpoint import check_shape
from spaces.models.onnx.dynamic_batch import free_batch
from spaces.models.onnx.half_precision import without_half_precision
from spaces.stages.artifact import Artifact, InputSpec

if TYPE_CHECKING:
    import onnx


_NOTE = (
    "{name} has float16 or bfloat16 tensors, which were converted to float32 (inputs and outputs, too): the "
    "uncompressed model's size and costs are those of float32"
)


class OnnxModel(ModelSource):
    """Any ONNX file with one float input and one output; float16 and bfloat16 become float32.

    Args:
        checkpoint: The file. External weight files beside it are read, too.
        input_shape: Shape of one example, without the batch axis; needed only if the file has dynamic axes.
    """

    def __init__(self, checkpoint: str, input_shape: Sequence[int] | None = None) -> None:
        self.checkpoint = Path(checkpoint).expanduser()
        self.input_shape = None if input_shape is None else check_shape(input_shape)

    def load(self, context: LoadContext) -> Artifact:
        """Returns the model in float32; a fixed batch axis is made dynamic.

        A note says so if the file has tensors of half precision.

        Raises:
            InputError: The file is missing, damaged or of another format, or has other inputs and outputs.
        """
        given = read_onnx(self.checkpoint)
        proto = without_half_precision(given)
        value = _one_input(proto, self.checkpoint)
        spec = InputSpec(self._shape(value), value.name)
        notes = {} if proto is given else {"model": _NOTE.format(name=self.checkpoint.name)}
        return replace(Artifact.onnx(free_batch(proto, spec, self.checkpoint), spec), notes=notes)

    def _shape(self, value: "onnx.ValueInfoProto") -> tuple[int, ...]:
        """Returns the shape of one example, and sets the dynamic axes of `value` to it."""
        axes = value.type.tensor_type.shape.dim[1:]
        declared = tuple(d.dim_value for d in axes)  # 0 for a dynamic axis
        if self.input_shape is None:
            if declared and all(declared):
                return declared
            raise InputError(
                f"{self.checkpoint}: the shape of input {value.name!r} is open {list(declared)} (0 is open). "
                "Set it, e.g. model.input_shape=[3,224,224]"
            )
        fits = len(declared) == len(self.input_shape) and all(
            t in (0, s) for t, s in zip(declared, self.input_shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"{self.checkpoint}: input {value.name!r} has shape {list(declared)} (0 is open), "
                f"but model.input_shape is {list(self.input_shape)}"
            )
        for axis, size in zip(axes, self.input_shape, strict=True):
            axis.dim_value = size
        return self.input_shape


def read_onnx(path: Path) -> "onnx.ModelProto":
    """Reads and checks an ONNX file.

    Raises:
        InputError: The file is missing, truncated, or not an ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise InputError(f"{path}: there is no such ONNX file")
    try:
        proto = _checked(onnx.load(str(path)))
    except DecodeError as error:
        raise InputError(f"{path} is truncated, or no ONNX file") from error
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise InputError(f"{path} is no valid ONNX model: {str(error).splitlines()[0][:300]}") from error
    if not proto.graph.node:
        raise InputError(f"{path} is an ONNX file without a single node")
    return proto


def _checked(proto: "onnx.ModelProto") -> "onnx.ModelProto":
    """Checks the model, inferring shapes if needed: some exporters omit those of the outputs."""
    import onnx

    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        proto = onnx.shape_inference.infer_shapes(proto)
        onnx.checker.check_model(proto)
    return proto


def _one_input(proto: "onnx.ModelProto", path: Path) -> "onnx.ValueInfoProto":
    import onnx

    initializers = {i.name for i in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in initializers]
    for kind, values in (("input", inputs), ("output", list(proto.graph.output))):
        if len(values) != 1:
            names = ", ".join(v.name for v in values) or "none"
            raise InputError(
                f"{path} must have one {kind}, but has {len(values)} ({names}). Cut the part that you "
                "need out of it with onnx.utils.extract_model"
            )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise InputError(f"{path}: input {inputs[0].name!r} must be float32, but is {name}")
    if len(tensor.shape.dim) == 0:
        raise InputError(f"{path}: input {inputs[0].name!r} has no batch axis")
    return inputs[0]

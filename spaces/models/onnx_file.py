"""A user's own network as an ONNX file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from spaces.errors import ConfigError, InputError, unknown_name
from spaces.models.base import LoadContext, ModelSource
from spaces.models.checkpoint import check_shapes
from spaces.models.onnx.dynamic_batch import free_batch
from spaces.models.onnx.half_precision import without_half_precision
from spaces.stages.artifact import Artifact, InputSpec, Kind

if TYPE_CHECKING:
    import onnx


_NOTE = (
    "{name} has float16 or bfloat16 tensors, which were converted to float32 (inputs and outputs, too): the "
    "uncompressed model's size and costs are those of float32"
)


class OnnxModel(ModelSource):
    """Any ONNX file whose inputs are tensors of numbers; float16 and bfloat16 become float32.

    Args:
        checkpoint: The file. External weight files beside it are read, too.
        input_shape: Shape of one example, without the batch axis, or shapes by name of several inputs; needed only if the
            file has dynamic axes.
    """

    kind: ClassVar[Kind | None] = "onnx"

    def __init__(
        self, checkpoint: str, input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.checkpoint = Path(checkpoint).expanduser()
        self.input_shape = None if input_shape is None else check_shapes(input_shape)

    def load(self, context: LoadContext) -> Artifact:
        """Returns the model in float32; a fixed batch axis is made dynamic.

        A note says so if the file has tensors of half precision.

        Raises:
            InputError: The file is missing, damaged or of another format, or has other inputs and outputs.
        """
        given = read_onnx(self.checkpoint)
        proto = without_half_precision(given)
        spec = self._spec(proto)
        notes = {} if proto is given else {"model": _NOTE.format(name=self.checkpoint.name)}
        return replace(Artifact.onnx(free_batch(proto, spec, self.checkpoint), spec), notes=notes)

    def _spec(self, proto: "onnx.ModelProto") -> InputSpec:
        """Returns the inputs, and sets their dynamic axes to the sizes of `model.input_shape`."""
        values, given = _inputs(proto, self.checkpoint), self.input_shape
        if given is not None and not isinstance(given, Mapping):
            if len(values) > 1:
                raise InputError(
                    f"{self.checkpoint} has the inputs {', '.join(v.name for v in values)}; give a shape for each by name, "
                    f"e.g. 'model.input_shape={{{values[0].name}: {list(given)}}}'"
                )
            given = {values[0].name: given}
        for name in given or {}:
            if name not in {value.name for value in values}:
                raise ConfigError(
                    unknown_name("input", name, [value.name for value in values], "model.input_shape")
                )
        for value in values:
            self._check_shape(value, (given or {}).get(value.name))
        return InputSpec.of_graph(proto.graph)

    def _check_shape(self, value: "onnx.ValueInfoProto", given: tuple[int, ...] | None) -> None:
        """Sets the dynamic axes of an input to the given shape of one example."""
        axes = value.type.tensor_type.shape.dim[1:]
        declared = tuple(d.dim_value for d in axes)  # 0 for a dynamic axis
        if given is None:
            if all(declared):
                return
            raise InputError(
                f"{self.checkpoint}: the shape of input {value.name!r} is open {list(declared)} (0 is open). "
                "Set it, e.g. model.input_shape=[3,224,224]"
            )
        fits = len(declared) == len(given) and all(t in (0, s) for t, s in zip(declared, given, strict=True))
        if not fits:
            raise InputError(
                f"{self.checkpoint}: input {value.name!r} has shape {list(declared)} (0 is open), "
                f"but model.input_shape is {list(given)}"
            )
        for axis, size in zip(axes, given, strict=True):
            axis.dim_value = size


def read_onnx(path: Path) -> "onnx.ModelProto":
    """Reads and checks an ONNX file.

    Raises:
        InputError: The file is missing, truncated, or not an ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        what = " is a folder, not an ONNX file" if path.is_dir() else ": there is no such ONNX file"
        raise InputError(f"{path}{what}")
    try:
        proto = _checked(_with_open_axes(onnx.load(str(path))))
    except DecodeError as error:
        raise InputError(f"{path} is truncated, or no ONNX file{_of_torch(path)}") from error
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise InputError(f"{path} is no valid ONNX model: {str(error).splitlines()[0][:300]}") from error
    if not proto.graph.node:
        raise InputError(f"{path} is an ONNX file without a single node")
    return proto


def _with_open_axes(proto: "onnx.ModelProto") -> "onnx.ModelProto":
    """Returns the model with the sizes below 0 of inputs and outputs, by which some exporters mean open axes, left open; in place."""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_value < 0:
                axis.ClearField("dim_value")
    return proto


def _of_torch(path: Path) -> str:
    """Returns what loads a checkpoint of torch, as the end of a message; nothing for files of other names."""
    is_torch = path.suffix.lower() in (".pt", ".pth", ".th", ".ckpt", ".tar", ".jit")
    return (
        ": by its name a checkpoint of torch, which model=torch loads with its class (model.cls)"
        if is_torch
        else ""
    )


def _checked(proto: "onnx.ModelProto") -> "onnx.ModelProto":
    """Checks the model, inferring shapes if needed: some exporters omit those of the outputs."""
    import onnx

    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        proto = onnx.shape_inference.infer_shapes(proto)
        onnx.checker.check_model(proto)
    return proto


def _inputs(proto: "onnx.ModelProto", path: Path) -> "list[onnx.ValueInfoProto]":
    """Returns the inputs that are no initializers. Raises InputError if one cannot be fed with arrays."""
    import onnx

    initializers = {i.name for i in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in initializers]
    for kind, values in (("input", inputs), ("output", list(proto.graph.output))):
        if not values:
            raise InputError(f"{path} has no {kind}")
    unknown = (onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
    for value in inputs:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or tensor.elem_type in unknown:
            raise InputError(f"{path}: input {value.name!r} must be a tensor of numbers")
        if len(tensor.shape.dim) == 0:
            raise InputError(
                f"{path}: input {value.name!r} is a single number without an axis of examples; make it a constant: move it from the graph's "
                "inputs to its initializers, with the value that it has in use"
            )
    return inputs

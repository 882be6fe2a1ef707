"""Makes the input shapes of an ONNX model static: batch 1 of the artifact's input shape."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from spaces.errors import EvaluationError
from spaces.stages.artifact import Artifact

if TYPE_CHECKING:
    import onnx


def at_batch_one(artifact: Artifact) -> "onnx.ModelProto":
    """Parses the model and sets its dynamic axes to batch 1 of `artifact.input`; a fixed batch stays.

    In further inputs only the batch axis (the first one) may be dynamic, and axes whose symbolic name has a
    known size.

    Raises:
        EvaluationError: An axis stays dynamic, or the model's input does not fit `artifact.input`.
    """
    model = artifact.proto()
    stored = {i.name for i in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    sizes = _fit_main_input(inputs, artifact)
    for value in inputs:
        _fit(value, sizes, artifact)
    # The exporter's shapes for the dynamic batch would be merged with those inferred for batch 1.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model


def _fit_main_input(inputs: Iterable["onnx.ValueInfoProto"], artifact: Artifact) -> dict[str, int]:
    """Sets the shape of the artifact's input; returns the sizes of its symbolic axes by name."""
    spec = artifact.input
    value = next((v for v in inputs if v.name == spec.name), None)
    if value is None:
        names = ", ".join(repr(v.name) for v in inputs) or "none"
        raise EvaluationError(
            f"{_place(artifact)} has no input {spec.name!r}, which the artifact names; it has {names}"
        )
    dims = value.type.tensor_type.shape.dim
    expected = (1, *spec.shape)
    if not value.type.tensor_type.HasField("shape"):
        value.type.tensor_type.shape.CopyFrom(_shape(expected))
    elif len(dims) != len(expected):
        raise EvaluationError(
            f"{_place(artifact)}: input {spec.name!r} has {len(dims)} axes, batch included, but model.input_shape="
            f"{list(spec.shape)} gives {len(expected)}; give the shape of one example, without the batch"
        )
    sizes = {}
    for axis, (dim, size) in enumerate(zip(dims, expected, strict=True)):
        if dim.dim_value > 0:
            if axis and dim.dim_value != size:
                raise EvaluationError(_misfit(artifact, axis, dim.dim_value, [d.dim_value for d in dims[1:]]))
            continue
        if dim.dim_param:
            sizes[dim.dim_param] = size
        dim.dim_value = size
    return sizes


def _fit(value: "onnx.ValueInfoProto", sizes: dict[str, int], artifact: Artifact) -> None:
    """Sets the dynamic axes of a further input."""
    given = {other.name: other.shape for other in artifact.input.others}.get(value.name, ())
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise EvaluationError(f"{_place(artifact)}: input {value.name!r} has no shape; state it in the file")
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.dim_value > 0:
            continue
        if 0 < axis <= len(given) and given[axis - 1]:
            dim.dim_value = given[axis - 1]
            continue
        if dim.dim_param not in sizes and axis > 0:
            raise EvaluationError(
                f"{_place(artifact)}: axis {axis} of input {value.name!r} "
                f"({dim.dim_param or 'without a name'}) is dynamic; fix it in the file, e.g. with "
                "onnxruntime.tools.make_dynamic_shape_fixed, or name it like an axis of the main input, "
                f"{artifact.input.name!r}, whose size model.input_shape=... gives"
            )
        dim.dim_value = sizes.get(dim.dim_param, 1)


def _misfit(artifact: Artifact, axis: int, size: int, in_file: list[int]) -> str:
    given = list(artifact.input.shape)
    right = [fixed or declared for fixed, declared in zip(in_file, given, strict=True)]
    return (
        f"{_place(artifact)}: axis {axis} of input {artifact.input.name!r} is {size} in the file, but "
        f"model.input_shape={given} says {given[axis - 1]}; give model.input_shape={right}, or leave it out"
    )


def _shape(sizes: Iterable[int]) -> "onnx.TensorShapeProto":
    import onnx

    dims = [onnx.TensorShapeProto.Dimension(dim_value=size) for size in sizes]
    return onnx.TensorShapeProto(dim=dims)


def _place(artifact: Artifact) -> str:
    """Returns a description of the model for messages: the stages that made it."""
    stages = " > ".join(step.stage for step in artifact.provenance)
    return f"the ONNX model (after {stages})" if stages else "the ONNX model"

"""The export stage: converts a torch module or any ONNX file to the ONNX form that later stages expect."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from spaces.candidate import StageValue
from spaces.errors import StageError
from spaces.models.layers import layers
from spaces.models.onnx.clean_up import clean_up
from spaces.models.onnx.expand_fused import expand_fused
from spaces.models.onnx.fold_constants import fold_constants
from spaces.models.onnx.graph import n_readers, to_proto
from spaces.models.onnx.opset import OPSET, to_opset
from spaces.stages.artifact import Artifact, InputSpec, Kind, Step
from spaces.stages.stage import Stage, StageContext

if TYPE_CHECKING:
    import onnx
    import torch

INPUT, OUTPUT = "input", "output"


class ExportStage(Stage):
    """Returns an ONNX model with a dynamic batch axis, folded BatchNorm, and weights stored as initializers.

    A torch module's weights keep the names of its state dict. An ONNX file goes through the same clean-up
    passes; its opset is raised to 21, which 4-bit and 16-bit quantization need, where that is possible.
    """

    name: ClassVar[str] = "export"
    consumes: ClassVar[tuple[Kind, ...]] = ("torch", "onnx")
    produces: ClassVar[Kind] = "onnx"

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the ONNX artifact.

        Raises:
            StageError: torch cannot export the module, or the result is not a valid ONNX model.
        """
        import onnx

        if artifact.kind == "torch":
            proto = _from_torch(artifact)
            spec = InputSpec(artifact.input.shape, INPUT)
        else:
            proto = to_opset(expand_fused(artifact.proto()), artifact.input)
            spec = artifact.input
        clean_up(proto)
        if artifact.kind == "torch":
            _name_layers(proto)
        proto.producer_name, proto.producer_version = "paredown", ""
        try:
            onnx.checker.check_model(proto)
        except onnx.checker.ValidationError as error:
            raise StageError(f"export: the result is no valid ONNX model: {error}") from error
        return Artifact.onnx(proto, spec, (*artifact.provenance, Step(self.name)))


def _from_torch(artifact: Artifact) -> "onnx.ModelProto":
    import onnx_ir as ir
    import onnxscript.optimizer
    import torch

    module = artifact.model
    assert isinstance(module, torch.nn.Module)
    module.eval()
    try:
        with _quiet():
            model = ir.from_proto(_export(module, artifact.input.shape))
            # Before the optimizer, which would rename a transposed weight to e.g. `val_12`.
            fold_constants(model)
            return ir.to_proto(onnxscript.optimizer.optimize(model))
    except Exception as error:  # the exporter raises errors of its own, of torch and of the module
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:3])[:400]
        raise StageError(f"export: torch cannot export {type(module).__name__}: {reason}") from error


def _export(module: "torch.nn.Module", shape: tuple[int, ...]) -> "onnx.ModelProto":
    import torch

    example = torch.zeros(2, *shape)  # 2, because the exporter treats a batch of 1 as a constant
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the exporter's warnings of deprecations inside torch and of a missing torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_layers(proto: "onnx.ModelProto") -> None:
    """Names layers' nodes and biases after their modules, e.g. `layer1.0.conv1`; exported names vary."""
    import onnx_ir as ir

    model = ir.from_proto(proto)
    taken, values = {node.name for node in model.graph}, ir.convenience.create_value_mapping(model.graph)
    found = {layer.node: layer for layer in layers(proto)}
    for node in model.graph:
        layer = found.get(str(node.name))
        stem = layer.name.removesuffix(".weight") if layer else ""
        if layer is None or stem == layer.name:
            continue
        bias = f"{stem}.bias"
        if layer.bias is not None and n_readers(values[layer.bias]) == 1 and bias not in values:
            values[layer.bias].name = bias
        if stem not in taken:
            node.name = stem
            taken.add(stem)
    proto.CopyFrom(to_proto(model))

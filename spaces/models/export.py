"""The export stage: converts a torch module or any ONNX file to the ONNX form that later stages expect."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from spaces.candidate import StageValue
from spaces.errors import StageError
from spaces.models.layers import layers
from spaces.models.onnx.clean_up import clean_up
from spaces.models.onnx.expand_fused import expand_fused
from spaces.models.onnx.fold_constants import fold_constants
from spaces.models.onnx.graph import n_readers, to_proto
from spaces.models.onnx.opset import to_opset
from spaces.models.weight_formats import record_formats
from spaces.stages.artifact import Artifact, InputSpec, Kind, Step
from spaces.stages.stage import Stage, StageContext

if TYPE_CHECKING:
    import onnx
    import torch

    from spaces.models.exporters.interface import Interface

OUTPUT = "output"


class ExportStage(Stage):
    """Returns an ONNX model with a dynamic batch axis, folded BatchNorm and branches, and weights stored as initializers.

    A torch module's weights keep the names of its state dict. An ONNX file goes through the same clean-up
    passes; its opset is raised to 21, which 4-bit and 16-bit quantization need, where that is possible.
    """

    name: ClassVar[str] = "export"
    consumes: ClassVar[tuple[Kind, ...]] = ("torch", "onnx")
    produces: ClassVar[Kind] = "onnx"

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the ONNX artifact; with `context.draft` a quick one, if that works, which its notes say.

        Raises:
            StageError: torch cannot export the module, or the result is not a valid ONNX model.
        """
        import onnx

        spec = artifact.input
        draft = _draft(artifact) if context.draft and artifact.kind == "torch" else None
        if artifact.kind == "torch":
            proto = _from_torch(artifact) if draft is None else to_opset(draft, spec)
        else:
            proto = to_opset(expand_fused(artifact.proto()), spec)
        clean_up(proto)
        if artifact.kind == "torch":
            _name_layers(proto)
            record_formats(proto, artifact.model)  # type: ignore[arg-type]
        proto.producer_name, proto.producer_version = "paredown", ""
        try:
            onnx.checker.check_model(proto)
        except onnx.checker.ValidationError as error:
            raise StageError(f"export: the result is no valid ONNX model: {error}") from error
        made = Artifact.onnx(proto, spec, (*artifact.provenance, Step(self.name)))
        return made if draft is None else replace(made, notes={self.name: {"draft": True}})


def _from_torch(artifact: Artifact) -> "onnx.ModelProto":
    import onnx_ir as ir
    import onnxscript.optimizer
    import torch

    from spaces.models.exporters.failure import UnfitError
    from spaces.models.exporters.quiet import quiet
    from spaces.models.exporters.to_onnx import to_onnx
    from spaces.models.torch.folding import folded

    assert isinstance(artifact.model, torch.nn.Module)
    module = folded(artifact.model.eval())
    try:
        proto = to_onnx(module, _interface(module, artifact.input))
    except UnfitError as error:
        raise StageError(f"export: torch cannot export {type(module).__name__}: {error}") from error
    model = ir.from_proto(to_opset(proto, artifact.input))
    # Before the optimizer, which would rename a transposed weight to e.g. `val_12`.
    fold_constants(model)
    with quiet():
        return ir.to_proto(onnxscript.optimizer.optimize(model))


def _draft(artifact: Artifact) -> "onnx.ModelProto | None":
    """Returns a quick export that has the network's layers; None if there is none."""
    import onnx
    import onnx_ir as ir
    import torch

    from spaces.models.exporters.quiet import quiet
    from spaces.models.exporters.torchscript import torchscript_export
    from spaces.models.torch.folding import folded

    assert isinstance(artifact.model, torch.nn.Module)
    module = folded(artifact.model.eval())
    try:
        with quiet():
            proto = torchscript_export(module, _interface(module, artifact.input))
        onnx.checker.check_model(proto)
        model = ir.from_proto(proto)
        fold_constants(model)
        found = ir.to_proto(model)
        return found if {layer.name for layer in layers(found)} <= module.state_dict().keys() else None
    except Exception:  # the export proper says what is wrong
        return None


def _interface(module: "torch.nn.Module", spec: InputSpec) -> "Interface":
    from spaces.models.exporters.interface import Interface

    inputs = [t.name for t in spec.tensors]
    return Interface(lambda n: _examples(spec, n), inputs, _output_names(module, *_examples(spec)))


def _examples(spec: InputSpec, n: int = 2) -> "tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]":
    """Returns examples of zeros: for a network's only argument, or by name for several."""
    import torch

    zeros = {t.name: torch.from_numpy(np.zeros((n, *t.shape), t.dtype)) for t in spec.tensors}
    return ((), zeros) if spec.others else (tuple(zeros.values()), {})


def _output_names(
    module: "torch.nn.Module", arguments: "tuple[torch.Tensor, ...]", named: "dict[str, torch.Tensor]"
) -> list[str]:
    import torch

    from spaces.stages.torch_outputs import names_of

    try:
        with torch.no_grad():
            return names_of(module(*arguments, **named), OUTPUT)
    except Exception:  # the exporters say which layer does not run, and why
        return [OUTPUT]


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

"""torch's older exporter. It takes what its successor refuses, and half a second where that takes seconds to import."""

import io
from dataclasses import replace
from inspect import signature
from typing import Any

import onnx
import torch

from spaces.models.exporters.batch_axis import BATCH
from spaces.models.exporters.interface import Interface

OPSET = 20  # the newest that it knows


def torchscript_export(module: torch.nn.Module, interface: Interface) -> onnx.ModelProto:
    """Exports a module with a dynamic batch axis. Weights keep the names of the state dict.

    Args:
        module: The module, in eval mode.
        interface: Its inputs and outputs.

    Raises:
        ValueError: The file has other inputs than the module.
        Exception: torch, its exporter and the module raise anything.
    """
    file: Any = io.BytesIO()
    given, named = interface.batch(2)
    if named:  # a file's inputs are in the order of the parameters of `forward`
        ordered = [name for name in signature(module.forward).parameters if name in named]
        interface = replace(interface, inputs=ordered)
    torch.onnx.export(
        module,
        given,
        file,
        kwargs=named,
        dynamo=False,
        dynamic_axes={name: {0: BATCH} for name in interface.inputs},
        opset_version=OPSET,
        do_constant_folding=False,  # it would rename weights, as would the folding of BatchNorm in eval mode
        training=torch.onnx.TrainingMode.PRESERVE,
        **interface.names(),
    )
    proto = onnx.load_model_from_string(file.getvalue())
    if sorted(i.name for i in proto.graph.input) != sorted(named or interface.inputs):
        raise ValueError(f"the exported file does not have the inputs {', '.join(named or interface.inputs)}")
    return proto

"""A quick export of a torch network, for what needs only its layers, its outputs and about its costs.

torch's exporter takes seconds to import. Its predecessor gives other nodes around the same layers within half a second.
"""

import io
import warnings
from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import torch

_OPSET = 18


def draft_export(
    module: "torch.nn.Module",
    arguments: "tuple[torch.Tensor, ...]",
    named: "Mapping[str, torch.Tensor]",
    input_name: str,
    output_names: list[str],
) -> "onnx.ModelProto | None":
    """Returns an ONNX model with a dynamic batch axis; None if the quick way fails.

    Args:
        module: The network, in eval mode.
        arguments: Examples for its only argument; empty if there are several.
        named: Examples by name of the argument, if there are several.
        input_name: Name of the input for `arguments`.
        output_names: Names of the outputs.
    """
    import onnx
    import torch

    ordered = [name for name in signature(module.forward).parameters if name in named]
    names = ordered if named else [input_name]
    if len(ordered) != len(named):
        return None
    file: Any = io.BytesIO()
    given: Any = (dict(named),) if named else arguments
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                given,
                file,
                dynamo=False,
                opset_version=_OPSET,
                do_constant_folding=False,  # it would rename weights
                training=torch.onnx.TrainingMode.PRESERVE,
                input_names=names,
                output_names=output_names,
                dynamic_axes={name: {0: "batch"} for name in names},
            )
        proto = onnx.load_model_from_string(file.getvalue())
        onnx.checker.check_model(proto)
    except Exception:  # torch, its exporter and the module raise anything
        return None
    return proto if [i.name for i in proto.graph.input] == names else None

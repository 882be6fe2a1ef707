"""Converts an ONNX model to a newer opset, if its outputs stay the same."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx.ort_session import ort_session
from spaces.stages.artifact import InputSpec
from spaces.stages.inputs import Inputs

if TYPE_CHECKING:
    import onnx

OPSET = 21  # the first whose QuantizeLinear and DequantizeLinear support int4, int16 and blocks


def to_opset(proto: "onnx.ModelProto", spec: InputSpec, opset: int = OPSET) -> "onnx.ModelProto":
    """Returns the model at `opset`; unchanged if it is as new, or if the conversion fails or changes outputs.

    Args:
        proto: A checked ONNX model.
        spec: Its inputs.
        opset: The requested version of the standard ONNX operators.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    current = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if current >= opset:
        return proto
    x = spec.noise(1)
    try:
        flat = ir.to_proto(InlinePass()(ir.from_proto(proto)).model)  # functions have opsets of their own
        converted: onnx.ModelProto = onnx.version_converter.convert_version(flat, opset)
        converted.ir_version = max(converted.ir_version, 10)
        same = np.allclose(run(converted, spec, x), run(proto, spec, x), rtol=1e-3, atol=1e-5)
    except Exception:  # onnx and onnxruntime have exceptions of their own; most stages accept the old opset
        return proto
    return converted if same else proto


def run(proto: "onnx.ModelProto", spec: InputSpec, x: Inputs) -> NDArray[np.float32]:
    """Returns the model's first output for inputs `x`, computed by onnxruntime."""
    return np.asarray(ort_session(proto, threads=0).run(None, spec.feeds(x))[0], dtype=np.float32)

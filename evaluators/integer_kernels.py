"""Whether this processor's 8-bit kernels are exact."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from spaces.models.onnx.ort_session import ort_session
from spaces.stages.artifact import Artifact

if TYPE_CHECKING:
    import onnx

_MODEL = """<ir_version: 10, opset_import: ["": 21]>
product (uint8[1, 64] x, int8[64, 16] w) => (int32[1, 16] y) { y = MatMulInteger(x, w) }"""


@lru_cache(maxsize=1)
def integer_kernels_saturate() -> bool:
    """Returns whether onnxruntime's 8-bit kernels add pairs of products in 16 bits, which saturates: x86 without VNNI.

    They do so for unsigned activations and signed weights. Accuracies of 8-bit models are lower on such a processor than on
    one with exact kernels, such as Arm's, or than the file's definition says.
    """
    from onnx import numpy_helper, parser

    model = parser.parse_model(_MODEL)
    del model.graph.input[1:]  # a constant weight: the kernels for those pack it
    model.graph.initializer.append(numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w"))
    (sums,) = ort_session(model).run(None, {"x": np.full((1, 64), 255, np.uint8)})
    return bool(np.any(sums != 64 * 255 * 127))


def with_unsigned_matmuls(artifact: Artifact) -> bytes:
    """Returns the model with the signed 8-bit weights of QLinearMatMul stored as unsigned ones, which mean the same.

    onnxruntime has an option that does so for all other operators (`session.x64quantprecision`), but not for this one.
    Products with signed activations stay as they are: there is no kernel for these with unsigned weights.
    """
    from onnx import TensorProto

    proto = artifact.proto()
    stored = {i.name: i for i in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "QLinearMatMul":
            names = [node.input[3], node.input[5]]
            kinds = [stored[n].data_type if n in stored else None for n in (node.input[2], *names)]
            if kinds == [TensorProto.UINT8, TensorProto.INT8, TensorProto.INT8]:
                node.input[3], node.input[5] = (_shifted(proto, stored, name) for name in names)
    return bytes(proto.SerializeToString())


def _shifted(proto: "onnx.ModelProto", stored: dict[str, "onnx.TensorProto"], name: str) -> str:
    """Adds 128 to a tensor of 8-bit integers or of their zero points, stored as a new one; returns its name."""
    from onnx import numpy_helper

    new = f"{name}/unsigned"
    if new not in stored:
        values = numpy_helper.to_array(stored[name]).astype(np.int16) + 128
        stored[new] = numpy_helper.from_array(np.asarray(values, np.uint8), new)
        proto.graph.initializer.append(stored[new])
    return new

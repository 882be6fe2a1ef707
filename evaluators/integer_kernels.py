"""Whether this processor's 8-bit kernels are exact."""

from functools import lru_cache

import numpy as np

from spaces.models.onnx.ort_session import ort_session

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

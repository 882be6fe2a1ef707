"""Runs one integer-only function in onnxruntime, and computes it with numpy's integers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from spaces.models.onnx.ort_session import ort_session
from spaces.quantization.formats.stored import SIMULATING
from spaces.quantization.transformers.functions import parsed
from spaces.quantization.transformers.replace import texts_of


def shifted_power(a, one):
    """I-ViT's shift-exp of integers that are 0 or more, with Python's shifts."""
    a = np.asarray(a, np.int64)
    p = a + (a >> 1) - (a >> 4)
    whole, rest = p // one, p % one
    return ((one - (rest >> 1)) << 5) >> np.minimum(whole, 17)


@pytest.fixture
def computed():
    """Returns the result of a function's node in onnxruntime."""

    def run(kind, x, attributes, parameters=(), opset=21):
        names = ["x", *(f"p{i}" for i in range(len(parameters)))]
        node = helper.make_node(kind, names, ["y"], domain=SIMULATING, **attributes)
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
            [
                onnx.numpy_helper.from_array(np.asarray(p), n)
                for p, n in zip(parameters, names[1:], strict=True)
            ],
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(SIMULATING, 1)]
        proto = helper.make_model(
            graph, opset_imports=opsets, functions=parsed(texts_of({kind}), opset), ir_version=10
        )
        onnx.checker.check_model(proto, full_check=True)
        return ort_session(proto).run(None, {"x": x})[0]

    return run

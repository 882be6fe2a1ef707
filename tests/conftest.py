"""Settings and fixtures for all tests."""

import signal

import numpy as np
import pytest
from hypothesis import settings

# no deadline, because machines are noisy; the same examples in every run, so that a failure is due to a change
settings.register_profile("paredown", deadline=None, derandomize=True)
settings.load_profile("paredown")


@pytest.fixture
def interruptible():
    """Makes Ctrl-C work as in a terminal, here and in child processes, even if the tests' parent ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def integer_kernels_saturate():
    """Whether onnxruntime's 8-bit kernels add pairs of products in 16 bits, which saturates: x86 without VNNI."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"x": np.full((1, 64), 255, np.uint8)})
    return bool(np.any(sums != 64 * 255 * 127))


@pytest.fixture
def exact_integer_kernels(integer_kernels_saturate):
    """Skips tests of 8-bit kernels on processors on which these saturate."""
    if integer_kernels_saturate:
        pytest.skip("this processor's 8-bit kernels saturate")

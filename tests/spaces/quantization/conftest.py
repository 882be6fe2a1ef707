"""Small ONNX networks, drawn with fixed seeds."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

Run = Callable[..., np.ndarray]


class Builder:
    """Builds a graph node by node; each node is named after its output."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape, self.nodes, self.initializers = shape, [], []

    def constant(self, name: str, values: object) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, name: str, *shape: int, spread: float = 1.0) -> str:
        fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        values = self.rng.standard_normal(shape) * np.sqrt(2 / fan)
        factors = np.exp(self.rng.uniform(-spread, spread, shape[0]))  # channels of different range
        return self.constant(name, (values * factors.reshape(-1, *[1] * (len(shape) - 1))).astype(np.float32))

    def bias(self, name: str, n: int) -> str:
        return self.constant(name, (0.1 * self.rng.standard_normal(n)).astype(np.float32))

    def op(self, op_type: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"node_{output}", **attributes))
        return output

    def conv(
        self, x: str, name: str, n_in: int, n_out: int, kernel: int = 3, bias: bool = True, **more
    ) -> str:
        groups = more.get("group", 1)
        inputs = [x, self.weight(f"{name}.weight", n_out, n_in // groups, kernel, kernel)]
        inputs += [self.bias(f"{name}.bias", n_out)] if bias else []
        return self.op("Conv", inputs, f"{name}_out", pads=[kernel // 2] * 4, **more)

    def linear(self, x: str, name: str, n_in: int, n_out: int) -> str:
        weight = self.weight(f"{name}.weight", n_out, n_in)
        return self.op("Gemm", [x, weight, self.bias(f"{name}.bias", n_out)], f"{name}_out", transB=1)

    def artifact(self, output: str, opset: int = 21) -> Artifact:
        batch = ["batch", *self.shape]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, batch)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", opset)]
        proto = helper.make_model(
            graph, opset_imports=opsets, ir_version=max(8, helper.find_min_ir_version_for(opsets))
        )
        proto = onnx.shape_inference.infer_shapes(proto)
        onnx.checker.check_model(proto)
        return Artifact.onnx(proto, InputSpec(self.shape))


@pytest.fixture
def build() -> type[Builder]:
    return Builder


@pytest.fixture
def small() -> Artifact:
    """Conv, depthwise Conv and Conv with ReLU and ReLU6 between, a skip, pooling and a Gemm."""
    b = Builder((3, 8, 8))
    x = b.op("Relu", [b.conv("input", "stem", 3, 8)], "stem_relu")
    y = b.op("Relu", [b.conv(x, "expand", 8, 16, 1)], "expand_relu")
    y = b.op("Relu", [b.conv(y, "depthwise", 16, 16, group=16)], "depthwise_relu")
    y = b.conv(y, "project", 16, 8, 1)
    y = b.op("Add", [x, y], "sum")
    y = b.op("Relu", [y], "sum_relu")
    y = b.op("GlobalAveragePool", [y], "pool")
    y = b.op("Flatten", [y], "flat")
    return b.artifact(b.linear(y, "classifier", 8, 5))


@pytest.fixture
def lonely() -> Artifact:
    """One MatMul: no bias, no pair, its first layer is its last."""
    b = Builder((6,))
    return b.artifact(b.op("MatMul", ["input", b.weight("only.weight", 6, 4)], "out"))


@pytest.fixture
def format_sets() -> list[dict[str, object]]:
    """Settings among which every option of a weight format matters."""
    return [
        {"weight_format": "gwq", "weight_bits": 3},
        {"weight_format": "shift_add", "weight_bits": 3, "precision": "weights_only"},
        {"weight_format": "fixed_point"},
        {"weight_format": "codes", "activation_bits": 4, "code_bits": 2},
    ]


@pytest.fixture
def noise() -> ArraySplit:
    return noise_split((3, 8, 8), 64)


@pytest.fixture
def context(noise: ArraySplit) -> StageContext:
    return StageContext(noise, Cache())


@pytest.fixture
def run() -> Run:
    """Runs a model in plain onnxruntime."""
    import onnxruntime as ort

    def run(artifact: Artifact, inputs: np.ndarray, optimize: bool = True) -> np.ndarray:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(artifact.onnx_bytes, options, providers=["CPUExecutionProvider"])
        return session.run(None, {artifact.input.name: inputs})[0]

    return run

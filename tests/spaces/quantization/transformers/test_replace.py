"""The quantize stage's `integer_functions`: which graphs it changes, what their files say, and a small vision transformer."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from evaluators.cost.graph.op_graph import op_graph
from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.quantization.formats.stored import SIMULATING, packed_bytes, simulated_layers
from spaces.quantization.quantize import QuantizeStage
from spaces.quantization.transformers.replace import WHAT
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split
from spaces.stages.torch_artifact import torch_artifact

ASKED = {"integer_functions": True}


class VisionTransformer(nn.Module):
    """Images of 8 x 8 in 16 patches, one layer of two heads."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 2, 2)
        self.place = nn.Parameter(0.3 * torch.randn(16, 16))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        q, k, v = (p.unflatten(2, (2, 8)).transpose(1, 2) for p in self.qkv(self.norms[0](x)).split(16, 2))
        mixed = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def trained(digits):
    images, labels = (torch.tensor(part[:1200]) for part in digits)
    torch.manual_seed(0)
    net = VisionTransformer()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for epoch in range(10):
        for rows in torch.randperm(1200, generator=torch.Generator().manual_seed(epoch)).split(48):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    artifact = torch_artifact(net.eval(), InputSpec((1, 8, 8)))
    return ExportStage().apply(artifact, {}, StageContext(None, Cache()))


@pytest.fixture
def context_of_digits(digits):
    return StageContext(ArraySplit(digits[0][:64], digits[1][:64]), Cache())


def test_a_vision_transformer(trained, digits, context_of_digits, run):
    stage, (images, labels) = QuantizeStage(), digits
    quantized = stage.apply(trained, {}, context_of_digits)
    made = stage.apply(trained, ASKED, context_of_digits)
    kinds = [node.op_type for node in made.proto().graph.node if node.domain == SIMULATING]
    assert sorted(kinds) == ["Gelu", *["LayerNormalization"] * 3, "Softmax"]
    onnx.checker.check_model(made.proto(), full_check=True)
    scores = [run(m, images[1200:], optimize=True) for m in (trained, quantized, made)]
    correct = [float((s.argmax(-1) == labels[1200:]).mean()) for s in scores]
    assert correct[0] > 0.85
    assert correct[2] > correct[0] - 0.03
    errors = [np.sqrt(np.mean((s - scores[0]) ** 2) / np.mean(scores[0] ** 2)) for s in scores]
    assert errors[1] < errors[2] < 0.15


def test_optimizations_of_onnxruntime_change_nothing_of_it(trained, digits, context_of_digits, run):
    made = QuantizeStage().apply(trained, {**ASKED, "precision": "static"}, context_of_digits)
    nodes = [n for n in made.proto().graph.node if n.domain == SIMULATING]
    assert nodes
    got, plain = (run(made, digits[0][:50], optimize=o) for o in (True, False))
    np.testing.assert_allclose(got, plain, atol=0.05 * np.abs(plain).max())


def test_no_operator_between_the_integers_is_of_floats(trained, context_of_digits):
    made = QuantizeStage().apply(trained, ASKED, context_of_digits)
    floats = {"Sub", "Div", "Round", "Clip", "Cast", "Constant", "Mul"}
    for function in made.proto().functions:
        types = {name: "float" for name in function.input if name == "x"}
        for node in function.node:
            kind = next((a.i for a in node.attribute if a.name == "to"), None)
            if node.op_type == "Constant":
                is_float = node.attribute[0].name == "value_float"
            elif node.op_type == "Cast":
                is_float = kind == onnx.TensorProto.FLOAT
            else:
                is_float = any(types.get(name) == "float" for name in node.input)
            types |= dict.fromkeys(node.output, "float" if is_float else "integer")
            assert not is_float or node.op_type in floats, (function.name, node)
        casts = [n for n in function.node if n.op_type == "Cast" and types[n.output[0]] == "float"]
        assert len(casts) == (0 if function.name == "ShiftExp" else 1)


def test_its_file_says_that_it_simulates(trained, context_of_digits):
    stage = QuantizeStage()
    quantized, made = (stage.apply(trained, values, context_of_digits) for values in ({}, ASKED))
    layers = simulated_layers(made.onnx_bytes)
    assert set(layers.values()) == {WHAT}
    assert len(layers) == 5
    assert simulated_layers(quantized.onnx_bytes) == {}
    assert any("(simulated)" in note for note in made.notes["quantize"]["notes"])
    remarks = "\n".join(stage.remarks(trained, {"integer_functions": (False, True)}, context_of_digits))
    assert "Simulated: integer_functions=true" in remarks
    assert "Softmax" not in remarks
    assert "Softmax has no integer kernel" in "\n".join(stage.remarks(trained, {}, context_of_digits))
    assert packed_bytes(made.onnx_bytes) < packed_bytes(quantized.onnx_bytes) + 2000 < len(made.onnx_bytes)


def test_its_costs_are_those_of_one_kernel_for_each(trained, context_of_digits):
    made = QuantizeStage().apply(trained, ASKED, context_of_digits)
    graph = op_graph(made)
    operators = [kernel.op for kernel in graph.kernels]
    assert (operators.count("Softmax"), operators.count("Gelu"), operators.count("LayerNormalization")) == (
        1,
        1,
        3,
    )
    assert not graph.unknown
    float_graph = op_graph(trained)
    assert max(graph.tensor_bytes.values()) <= max(float_graph.tensor_bytes.values())


@pytest.mark.parametrize(
    "values", [{"precision": "weights_only"}, {"precision": "dynamic"}, {"precision": "float16"}]
)
def test_precisions_without_static_ranges_do_not_use_it(trained, context_of_digits, values):
    stage = QuantizeStage()
    asked = stage.canonical(trained, {**ASKED, **values}, context_of_digits)
    assert asked == stage.canonical(trained, values, context_of_digits)


def test_networks_without_such_functions(small, context):
    stage = QuantizeStage()
    wanted = stage.canonical(small, {}, context)
    assert stage.canonical(small, {**ASKED, "gelu_limit": 2.0}, context) == wanted
    empty = stage.empty_knobs(small, {"integer_functions": (False, True), "gelu_limit": (0.0, 3.0)}, context)
    assert empty == {
        "integer_functions": "the network has no Softmax, GELU or layer normalization",
        "gelu_limit": "the network has no GELU",
    }


def test_a_limit_without_integer_functions(trained, context_of_digits):
    stage = QuantizeStage()
    assert stage.canonical(trained, {"gelu_limit": 2.0}, context_of_digits)["gelu_limit"] == 0
    domains = {"integer_functions": (False,), "gelu_limit": (0.0, 2.0)}
    empty = stage.empty_knobs(trained, domains, context_of_digits)
    assert empty["gelu_limit"] == "only integer_functions=true uses it"
    assert stage.canonical(trained, {**ASKED, "gelu_limit": 2.0}, context_of_digits)["gelu_limit"] == 2


def test_a_limit_changes_numbers_alone(trained, context_of_digits):
    stage = QuantizeStage()
    a, b = ({**ASKED, "gelu_limit": limit} for limit in (0.0, 0.5))
    first, second = (stage.apply(trained, values, context_of_digits) for values in (a, b))
    assert first.digest != second.digest
    structures = [
        stage.structure(trained, stage.canonical(trained, v, context_of_digits), context_of_digits)
        for v in (a, b)
    ]
    assert structures[0] == structures[1]


def test_an_input_that_is_not_finite_stays_float(build):
    b = build((6, 8))
    x = b.op("MatMul", ["input", b.weight("w", 8, 8)], "x")
    huge = b.op("Mul", [x, b.constant("huge", np.float32(3e38))], "huge_x")
    y = b.op("MatMul", [b.op("Softmax", [huge], "soft"), b.weight("v", 8, 8)], "y")
    artifact = b.artifact(b.linear(b.op("Flatten", [y], "flat"), "last", 48, 3))
    made = QuantizeStage().apply(artifact, ASKED, StageContext(noise_split((6, 8), 16), Cache()))
    assert not simulated_layers(made.onnx_bytes)
    assert "Left float: node_soft: the input is not finite" in made.notes["quantize"]["notes"]


def test_a_negative_limit_is_refused(trained, context_of_digits):
    with pytest.raises(StageError, match="gelu_limit must lie between 0"):
        QuantizeStage().canonical(trained, {"gelu_limit": -1.0}, context_of_digits)

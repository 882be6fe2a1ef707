import logging
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest
import torch

from spaces.errors import StageError
from spaces.models.export import ExportStage
from spaces.models.layers import layers
from spaces.models.onnx.ort_session import ort_session
from spaces.models.testing import assert_exported_form, outputs_of
from spaces.stages.artifact import Artifact, InputSpec, TensorSpec
from spaces.stages.cache import Cache
from spaces.stages.inputs import packed
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import module_digest, torch_artifact
from spaces.stages.torch_outputs import tensors_of

CONTEXT = StageContext(None, Cache())


class Net(torch.nn.Module):
    """Convolutions with BatchNorm, with and without bias; a linear layer on a matrix and on rows; a reused layer."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.again = torch.nn.Conv2d(4, 4, 1)
        self.norm2 = torch.nn.BatchNorm2d(4)
        self.rows = torch.nn.Linear(6, 6)
        self.head = torch.nn.Linear(4 * 36, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.norm2(self.again(self.again(x))))
        x = self.rows(x).flatten(1)
        return self.head(x).clone()


def net():
    generator = torch.Generator().manual_seed(0)
    module = Net()
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.2, 1, generator=generator)
    return module


@pytest.fixture(scope="module")
def pair():
    artifact = torch_artifact(net(), InputSpec((2, 6, 6)))
    return artifact, ExportStage().apply(artifact, {}, CONTEXT)


def test_exported_outputs_are_equal(pair):
    artifact, exported = pair
    for n in (1, 7):
        x = np.random.default_rng(n).standard_normal((n, 2, 6, 6)).astype(np.float32)
        np.testing.assert_allclose(outputs_of(exported, x), outputs_of(artifact, x), rtol=1e-4, atol=1e-4)


def test_exported_form(pair):
    artifact, exported = pair
    assert_exported_form(exported)
    proto = exported.proto()
    # The second use of `again` has a shared weight, so its BatchNorm stays.
    names = ["conv.weight", "again.weight", "again.weight", "rows.weight", "head.weight"]
    assert [layer.name for layer in layers(proto)] == names
    assert [n.op_type for n in proto.graph.node].count("BatchNormalization") == 1
    assert layers(proto)[0].bias == "conv.bias"
    assert layers(proto)[0].node == "conv"
    assert [o.version for o in proto.opset_import if o.domain == ""] == [21]
    assert (exported.input.name, exported.input.shape) == ("input", artifact.input.shape)
    assert [step.stage for step in exported.provenance] == ["export"]
    assert proto.producer_name == "paredown"
    assert __file__.encode() not in exported.onnx_bytes


def test_the_module_is_not_changed(pair):
    artifact, _ = pair
    assert module_digest(artifact.model) == artifact.digest


def test_exporting_an_exported_file_changes_nothing(pair):
    _, exported = pair
    again = ExportStage().apply(exported, {}, CONTEXT)
    assert again.digest == exported.digest


def test_exporting_prints_nothing(capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ExportStage().apply(torch_artifact(torch.nn.Linear(3, 2), InputSpec((3,))), {}, CONTEXT)
    assert [str(w.message) for w in caught] == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == logging.NOTSET


@pytest.mark.slow
def test_every_process_writes_the_same_bytes(tmp_path):
    script = (
        "import torch, sys; torch.manual_seed(0);"
        "from spaces.models.export import ExportStage; from spaces.stages.torch_artifact import torch_artifact;"
        "from spaces.stages.artifact import InputSpec; from spaces.stages.stage import StageContext; from spaces.stages.cache import Cache;"
        "net = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3), torch.nn.Flatten(), torch.nn.Linear(9, 2));"
        "print(ExportStage().apply(torch_artifact(net, InputSpec((2, 5))), {}, StageContext(None, Cache())).digest)"
    )
    digests = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


class Branches(torch.nn.Module):
    def forward(self, x):
        return x.relu() if x.sum() > 0 else x


class Wrong(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 2)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("module", [Branches(), Wrong()])
def test_modules_that_torch_cannot_export_raise(module):
    with pytest.raises(StageError, match=f"export: torch cannot export {type(module).__name__}: ."):
        ExportStage().apply(torch_artifact(module, InputSpec((3,))), {}, CONTEXT)


def test_an_opset_that_cannot_be_converted_stays():
    # A custom operator: neither the converter nor onnxruntime knows it.
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])
    node = onnx.helper.make_node("Fancy", ["x"], ["y"], domain="my.ops")
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("my.ops", 1)]
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    exported = ExportStage().apply(Artifact.onnx(model, InputSpec((3,), "x")), {}, CONTEXT).proto()
    assert [o.version for o in exported.opset_import] == [13, 1]
    assert exported.graph.node[0].op_type == "Fancy"


class Several(torch.nn.Module):
    """Takes two inputs, tokens among them, and returns a dict with a tuple."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(4, 3), torch.nn.Linear(5, 2)

    def forward(self, sensor, tokens):
        mean = self.embed(tokens).mean(1)
        return {"parts": (mean, sensor * 2), "logits": self.head(torch.cat([mean, sensor], 1))}


def test_several_inputs_and_outputs_keep_their_names_and_types():
    spec = InputSpec((6,), "tokens", "int64", others=(TensorSpec((2,), "sensor"),))  # not in forward's order
    artifact = torch_artifact(Several(), spec)
    exported = ExportStage().apply(artifact, {}, CONTEXT)
    assert_exported_form(exported)
    assert exported.input == spec
    session = ort_session(exported.onnx_bytes)
    assert {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()} == {
        "tokens": ("tensor(int64)", [6]),
        "sensor": ("tensor(float)", [2]),
    }
    assert [o.name for o in session.get_outputs()] == ["parts", "parts_1", "logits"]
    batch = spec.noise(7)
    found = session.run(None, spec.feeds(batch))
    with torch.no_grad():
        wanted = tensors_of(artifact.model(torch.from_numpy(packed(batch))))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)

"""The notes on a network before the search."""

import contextlib

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.api import compose
from search.planning.loading import _teacher, load
from search.planning.session import prepare
from spaces.errors import ConfigError
from spaces.stages.artifact import Artifact, InputSpec


@pytest.fixture
def padded(tmp_path):
    """A float network for 8x8 digits that pads with -inf."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(10, 4, 1, 1)).astype(np.float32),
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "low": np.array(-np.inf, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem"),
        helper.make_node("Pad", ["a", "pads", "low"], ["b"], name="pad"),
        helper.make_node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "v"], ["d"], name="last"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="mean"),
        helper.make_node("Flatten", ["e"], ["y"], name="flat"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    path = tmp_path / "net.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_study_s_notes_name_what_stays_float(padded, tmp_path):
    given = [
        "model=onnx", f"model.checkpoint={padded}", f"cache_dir={tmp_path / 'cache'}", "evaluator=[accuracy,cost]",
        "objective=accuracy_size", "device=[stm32h743]", "tracker=none", "knowledge=none",
    ]  # fmt: skip
    with contextlib.chdir(tmp_path):
        notes = prepare(compose(given), lambda text: None).plan.notes
    assert [note for note in notes if note.startswith("Left float")] == [
        "Left float: pad: its output is not finite",
        "Left float: pool: its input is not finite",
    ]


def test_a_remark_of_the_model_reaches_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weight = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float16)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "w"], ["y"])]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", *shape])
        for name, shape in (("x", (1, 8, 8)), ("y", (10,)))
    ]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "half.onnx").write_bytes(proto.SerializeToString())
    config = compose(["model=onnx", "model.checkpoint=half.onnx", "cache_dir=cache", "device=[stm32h743]"])
    notes = load(config, lambda text: None).notes
    assert any(note.startswith("half.onnx has float16 or bfloat16 tensors") for note in notes)


@pytest.mark.parametrize("sensitivity", ["fisher", "hessian"])
def test_sensitivities_by_gradients_are_refused_for_an_onnx_file(sensitivity):
    config = compose(["allocator=knapsack", f"allocator.sensitivity={sensitivity}"])
    model = Artifact("onnx", b"", InputSpec((1,)), "digest")
    with pytest.raises(
        ConfigError, match=f"sensitivity={sensitivity} needs gradients, which an ONNX file does not give"
    ):
        _teacher(config, model, trains=False)

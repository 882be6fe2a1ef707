import numpy as np
from onnx import TensorProto, helper, numpy_helper

from search.api import compose
from search.planning.loading import load


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

"""Torch functions compute what the node models of ONNX's own backend tests say."""

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from spaces.models.onnx.torch_graph.graph import TorchGraph
from spaces.models.onnx.torch_graph.operators import functions

LEAST_MODELS = 150
UNUSUAL = (
    "_expanded",
    "training",
    "empty_set_bool",
    "uint16",
    "uint32",
    "uint64",
    "string",
    "bfloat16",
    "float16",
    "float8",
    "int4",
    "uint4",
    "_int2",
    "uint2",
)


@cache
def cases():
    """Returns the node models of one node whose operator is a torch function, with inputs and outputs."""
    found = []
    for case in collect_testcases(None):
        nodes = case.model.graph.node
        usual = len(nodes) == 1 and nodes[0].op_type in functions() and nodes[0].domain == ""
        if usual and not any(part in case.name for part in UNUSUAL):
            found.append((case.name, case.model, case.data_sets[0]))
    return found


@pytest.mark.filterwarnings("ignore")
def test_node_models():
    """All are computed as the standard says, in torch or, where a form of an operator is not covered, in onnxruntime."""
    wrong, n_right = [], 0
    for name, model, (inputs, outputs) in cases():
        names = [i.name for i in model.graph.input]
        values = {
            n: torch.from_numpy(np.array(v))
            for n, v in zip(names, inputs, strict=True)
            if isinstance(v, np.ndarray)
        }
        if len(values) < len(names) or not all(isinstance(o, np.ndarray) for o in outputs):
            continue
        model.graph.node[0].name = "node"
        try:
            graph = TorchGraph(model)
            made = graph.run(graph.nodes, values)
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__} {str(error)[:80]}")
            continue
        got = made[model.graph.output[0].name].numpy()
        if got.shape == outputs[0].shape and np.allclose(got, outputs[0], 1e-3, 1e-4, equal_nan=True):
            n_right += 1
        else:
            wrong.append(f"{name}: other values")
    assert wrong == []
    assert n_right >= LEAST_MODELS


def test_an_operator_without_a_torch_function_runs_in_onnxruntime():
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], "sum")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array(1), "axis")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    torch_graph = TorchGraph(model)
    assert not torch_graph.nodes[0].is_differentiable
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(torch_graph.run(torch_graph.nodes, {"x": x})["y"], x.cumsum(1))
    onnx.checker.check_model(model)

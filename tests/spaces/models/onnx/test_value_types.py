import onnx
import pytest
from onnx import TensorProto, helper

from spaces.models.onnx.value_types import add_missing_types


def typed(op_type, domain, n_more=0, opset=21, imports=True):
    """Returns the element type of `op_type`'s output and of what follows it, after `add_missing_types`."""
    nodes = [
        helper.make_node(op_type, ["x"] * (1 + n_more), ["a"], domain=domain),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, 4]) for name in "xy"]
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1)] * bool(domain and imports)
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:]), opset_imports=opsets, ir_version=10
    )
    model = onnx.shape_inference.infer_shapes(model)
    add_missing_types(model)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    return types.get("a", 0), types.get("b", 0)


@pytest.mark.parametrize(
    ("op_type", "domain"), [("QuickGelu", "com.microsoft"), ("Inverse", "com.microsoft")]
)
def test_the_types_of_contrib_operators_come_from_onnxruntime(op_type, domain):
    assert typed(op_type, domain) == (TensorProto.FLOAT, TensorProto.FLOAT)


def test_an_operator_that_onnxruntime_lacks_leaves_the_model_as_it_is():
    assert typed("Unheard", "of.it") == (0, 0)

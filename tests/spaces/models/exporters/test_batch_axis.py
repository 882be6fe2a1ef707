"""Two models of fixed batch sizes are made one."""

import numpy as np
import onnx
import pytest
from onnx import parser

from spaces.models.exporters.batch_axis import with_batch_axis
from spaces.models.exporters.failure import UnfitError
from spaces.models.onnx.opset import run
from spaces.stages.artifact import InputSpec

SIZES = (2, 3)


def model(n, body, inputs="float[{n},4] x", output="float[{n},4] y"):
    text = f"""<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => ({output}) {{ {body} }}"""
    for name, value in {"n": n, "2n": 2 * n, "n+1": n + 1, "n*n": n * n}.items():
        text = text.replace(f"{{{name}}}", str(value))
    return parser.parse_model(text)


SAME = {
    "nothing but the axis": "y = Relu(x)",
    "one open axis": "s = Constant<value_ints = [{2n}, 2]>() a = Reshape(x, s) t = Constant<value_ints = [{n}, 4]>() y = Reshape(a, t)",
    "beside -1": "s = Constant<value_ints = [{n}, 2, -1]>() a = Reshape(x, s) t = Constant<value_ints = [{n}, -1]>() y = Reshape(a, t)",
    "an expanded row": "r = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>() s = Constant<value_ints = [{n}, 4]>() e = Expand(r, s) y = Add(x, e)",
    "a sum of sizes": "z = Constant<value_ints = [0]>() e = Constant<value_ints = [{n+1}]>() o = Constant<value_ints = [1]>() a = Concat<axis = 0>(x, x) y0 = Slice(a, o, e, z) y = Relu(y0)",
    "a scalar": "m = Constant<value_int = {n}>() f = CastLike(m, x) y = Mul(x, f)",
}


@pytest.mark.parametrize("body", SAME.values(), ids=SAME)
def test_batches_of_all_sizes_give_what_a_model_of_their_size_gives(body):
    freed = with_batch_axis(model(2, body), model(3, body), SIZES)
    onnx.checker.check_model(freed, full_check=True)
    assert [v.type.tensor_type.shape.dim[0].dim_param for v in (*freed.graph.input, *freed.graph.output)] == [
        "batch"
    ] * 2
    for n in (1, 2, 3, 5):
        x = np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)
        spec = InputSpec((4,), "x")
        np.testing.assert_array_equal(run(freed, spec, x), run(model(n, body), spec, x))


def test_an_open_axis_stays_a_constant():
    body = SAME["one open axis"]
    freed = with_batch_axis(model(2, body), model(3, body), SIZES)
    assert [node.op_type for node in freed.graph.node] == ["Reshape", "Reshape"]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("y = Relu(x)", "y = Sigmoid(x)", "decides how its Relu works"),
        ("y = LeakyRelu<alpha = 0.5>(x)", "y = LeakyRelu<alpha = 0.1>(x)", "decides how its LeakyRelu works"),
        ("a = Relu(x) y = Relu(a)", "y = Relu(x)", "its operations depend"),
        ("a = Relu(x) b = Relu(a) y = Add(a, b)", "a = Relu(x) b = Relu(a) y = Add(a, a)", "decides how its Add works"),
        ("c = Constant<value_floats = [2.0]>() y = Mul(x, c)", "c = Constant<value_floats = [3.0]>() y = Mul(x, c)", "built into its constants"),
    ],
)  # fmt: skip
def test_other_differences_are_refused(first, second, reason):
    with pytest.raises(UnfitError, match=reason):
        with_batch_axis(model(2, first), model(3, second), SIZES)

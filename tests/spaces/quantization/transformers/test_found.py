"""Softmax, GELU and layer normalization are found in every form, and nothing else is taken for them."""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from spaces.quantization.plan.prepare import prepared
from spaces.quantization.transformers.found import float_functions
from spaces.stages.artifact import Artifact, InputSpec


def found(artifact):
    return float_functions(prepared(artifact))


@pytest.fixture
def exported():
    """Writes a torch module as an old exporter does, which spells out what its opset lacks."""

    def make(module, opset, shape=(6, 8)):
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            axes = {"input": {0: "batch"}}
            torch.onnx.export(
                module.eval(), (torch.zeros(1, *shape),), file, dynamo=False, opset_version=opset,
                input_names=["input"], dynamic_axes=axes,
            )  # fmt: skip
        return Artifact.onnx(onnx.load_model_from_string(file.getvalue()), InputSpec(shape))

    return make


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("opset", [13, 20])
def test_gelu_of_torch(exported, approximate, opset):
    module = nn.Sequential(nn.Linear(8, 8), nn.GELU(approximate), nn.Linear(8, 4))
    (gelu,) = found(exported(module, opset))
    assert gelu.kind == "Gelu"
    assert (len(gelu.nodes) == 1) == (opset == 20)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("opset", [13, 17])
def test_layer_normalization_of_torch(exported, affine, opset):
    module = nn.Sequential(
        nn.Linear(8, 8), nn.LayerNorm((6, 8), eps=1e-3, elementwise_affine=affine), nn.Linear(8, 4)
    )
    (norm,) = found(exported(module, opset))
    assert (norm.kind, norm.axes, norm.size) == ("LayerNormalization", (-2, -1), 48)
    assert norm.epsilon == pytest.approx(1e-3)
    assert (norm.weight is not None) == (norm.bias is not None)
    assert affine <= (norm.weight is not None)


def test_products_with_the_reciprocal_of_the_root(build):
    b = build((6, 8))
    mean = b.op("ReduceMean", ["input", b.constant("axes", np.array([2]))], "mean")
    d = b.op("Sub", ["input", mean], "d")
    var = b.op("ReduceMean", [b.op("Mul", [d, d], "square"), "axes"], "var")
    root = b.op("Sqrt", [b.op("Add", [b.constant("eps", np.float32(1e-6)), var], "sum")], "root")
    y = b.op("Mul", [b.op("Reciprocal", [root], "inverse"), d], "y")
    artifact = b.artifact(b.linear(b.op("Flatten", [y], "flat"), "last", 48, 3))
    (norm,) = found(artifact)
    assert (norm.axes, norm.size, norm.weight, norm.name) == ((-1,), 8, None, "node_y")
    assert norm.epsilon == pytest.approx(1e-6)


@pytest.mark.parametrize("half_first", [False, True])
def test_gelu_in_another_order(build, half_first):
    b = build((8,))
    one, half, root = (
        b.constant(n, np.float32(v)) for n, v in (("one", 1), ("half", 0.5), ("root", 0.5**0.5))
    )
    erf = b.op("Erf", [b.op("Mul", [root, "input"], "scaled")], "erf")
    sum_ = b.op("Add", [one, erf], "sum")
    if half_first:
        y = b.op("Mul", [b.op("Mul", ["input", half], "halved"), sum_], "y")
    else:
        y = b.op("Mul", ["input", b.op("Mul", [half, sum_], "share")], "y")
    (gelu,) = found(b.artifact(b.linear(y, "last", 8, 3)))
    assert (gelu.kind, gelu.input, gelu.name, len(gelu.nodes)) == ("Gelu", "input", "node_y", 5)


def test_a_look_alike_is_no_gelu(build):
    b = build((8,))
    erf = b.op("Erf", ["input"], "erf")
    y = b.op("Mul", ["input", b.op("Add", [erf, b.constant("one", np.float32(1))], "sum")], "y")
    half = b.op("Mul", [y, b.constant("half", np.float32(0.5))], "z")
    assert found(b.artifact(b.linear(half, "last", 8, 3))) == ()


def test_a_part_that_others_read_stays(build):
    b = build((6, 8))
    mean = b.op("ReduceMean", ["input", b.constant("axes", np.array([-1]))], "mean")
    d = b.op("Sub", ["input", mean], "d")
    var = b.op("ReduceMean", [b.op("Mul", [d, d], "square"), "axes"], "var")
    root = b.op("Sqrt", [b.op("Add", [var, b.constant("eps", np.float32(1e-6))], "sum")], "root")
    y = b.op("Add", [b.op("Div", [d, root], "quotient"), root], "y")
    assert found(b.artifact(b.linear(b.op("Flatten", [y], "flat"), "last", 48, 3))) == ()


def test_a_factor_that_is_no_constant_is_not_part_of_it(build):
    b = build((6, 8))
    norm = b.op("LayerNormalization", ["input", b.constant("w", np.ones(8, np.float32))], "norm")
    y = b.op("Mul", [norm, b.op("Softmax", [norm], "soft", axis=1)], "y")
    kinds = [
        (f.kind, f.axes) for f in found(b.artifact(b.linear(b.op("Flatten", [y], "flat"), "last", 48, 3)))
    ]
    assert kinds == [("LayerNormalization", (-1,)), ("Softmax", (1,))]

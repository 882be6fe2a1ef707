"""Exported files are compared with the module, as far as the module itself takes the numbers and repeats itself."""

import pytest
import torch
from onnx import parser
from torch import nn

from spaces.models.exporters.failure import UnfitError
from spaces.models.exporters.same_outputs import check_outputs


def model(body, size="batch"):
    return parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]> g (float[{size},3] x) => (float[{size},3] y) {{ {body} }}"""
    )


def batch(n):
    return (torch.zeros(n, 3),), {}


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand(3)


class Named(nn.Module):
    def forward(self, other, x):
        return {"sum": other + x, "rest": other}


@pytest.mark.parametrize(
    ("body", "module"),
    [
        ("y = Relu(x)", nn.ReLU()),
        ("y = Log(x)", lambda x: x.log()),  # not finite where the network is not finite
        ("y = Relu(x)", Noise()),
        ("y = Abs(x)", lambda x: 1 / 0),  # it takes no such numbers
        ("y = Identity(x)", lambda x: (x, "no tensor")),
        ("y = Identity(x)", lambda x: x.double()),
    ],
)
def test_equal_outputs_pass(body, module):
    before = torch.random.get_rng_state()
    check_outputs(model(body), module, batch)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_inputs_by_name():
    proto = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]> g (float[b,3] x, float[b,3] other) => (float[b,3] y) { y = Sub(x, other) }"""
    )
    named = lambda n: ((), {"x": torch.zeros(n, 3), "other": torch.zeros(n, 3)})  # noqa: E731
    check_outputs(proto, lambda other, x: x - other, named)
    with pytest.raises(UnfitError, match="gives other outputs than the network"):
        check_outputs(proto, Named(), named)


@pytest.mark.parametrize(
    ("proto", "module", "reason"),
    [
        (model("y = Relu(x)"), nn.Sigmoid(), "gives other outputs than the network"),
        (model("y = Relu(x)"), lambda x: x.relu() if x.sum() > 0 else x, "depends on its input's values"),
        (model("y = Relu(x)"), lambda x: x * 2 if len(x) == 5 else x.relu(), "the batch size is built into its graph"),
        (model("y = Relu(x)", 2), nn.ReLU(), "the batch size is built into its graph"),
        (model("y = Relu(x)"), lambda x: x.relu()[:, :2], "gives other outputs than the network"),
        (model("y = Relu(x)"), lambda x: x.relu() / 0, "gives other outputs than the network"),
    ],
)  # fmt: skip
def test_others_do_not(proto, module, reason):
    with pytest.raises(UnfitError, match=reason):
        check_outputs(proto, module, batch)


def test_where_rounding_decides_smaller_numbers_are_compared():
    """A deep network of random weights may turn the rounding of large inputs into other outputs."""

    def module(x):
        return x + torch.sin(1e7 * torch.relu(x.abs() - 6))

    check_outputs(model("y = Identity(x)"), module, batch)
    with pytest.raises(UnfitError, match="batch size is built into"):
        check_outputs(model("y = Identity(x)", size=2), module, batch)
    with pytest.raises(UnfitError, match="other outputs"):
        check_outputs(model("y = Neg(x)"), module, batch)

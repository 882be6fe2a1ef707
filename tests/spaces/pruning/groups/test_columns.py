"""Convolutions as matrix products."""

import pytest
import torch
from torch import nn

from spaces.pruning.criteria.scoring.input_powers import input_powers
from spaces.pruning.groups.columns import column_powers, columns, is_dense, rows, weight_matrix

LAYERS = {
    "3x3": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 7, 6)),
    "strided, no bias": (
        lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(2, 0), bias=False),
        (3, 9, 8),
    ),
    "dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2), (3, 8, 8)),
    "same": (lambda: nn.Conv2d(3, 4, (4, 3), dilation=2, padding="same"), (3, 8, 8)),
    "valid": (lambda: nn.Conv2d(3, 4, 3, padding="valid"), (3, 5, 5)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="circular"), (3, 6, 6)),
    "1x1": (lambda: nn.Conv2d(5, 4, 1), (5, 3, 3)),
    "one axis": (lambda: nn.Conv1d(3, 4, 5, stride=2, padding=2), (3, 11)),
    "three axes": (lambda: nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), (2, 3, 4, 5)),
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "linear on tokens": (lambda: nn.Linear(6, 4), (5, 6)),
}


@pytest.fixture(params=LAYERS)
def case(request):
    torch.manual_seed(0)
    build, shape = LAYERS[request.param]
    return build(), torch.randn(4, *shape)


def test_the_product_is_the_output(case):
    layer, x = case
    with torch.no_grad():
        wanted = rows(layer, layer(x)).double()
        bias = 0.0 if layer.bias is None else layer.bias[:, None]
        assert torch.allclose(weight_matrix(layer) @ columns(layer, x).double() + bias, wanted, atol=1e-5)


def test_powers_are_those_of_the_columns(case):
    layer, x = case
    assert torch.allclose(column_powers(layer, x), columns(layer, x).double().square().sum(dim=1))


def test_powers_add_up_over_batches(case):
    layer, x = case
    found = input_powers(nn.Sequential(layer), ["0.weight"], x, 3)
    assert list(found) == ["0.weight"]
    assert torch.allclose(found["0.weight"], column_powers(layer, x))


def test_a_layer_that_does_not_run_has_no_power():
    network = nn.Sequential(nn.Linear(3, 2))
    network.add_module("idle", nn.Identity())
    network.idle.layer = nn.Linear(4, 1)
    found = input_powers(network, ["idle.layer.weight"], torch.ones(2, 3), 2)
    assert found["idle.layer.weight"].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (nn.Linear(4, 4), True),
        (nn.Conv1d(4, 4, 1), True),
        (nn.Conv2d(4, 4, 1, groups=2), False),
        (nn.Conv2d(4, 4, 1, groups=4), False),
        (nn.ConvTranspose2d(4, 4, 1), False),
        (nn.BatchNorm2d(4), False),
    ],
)
def test_dense_layers(layer, wanted):
    assert is_dense(layer) is wanted

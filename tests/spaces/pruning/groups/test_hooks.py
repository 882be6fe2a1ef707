"""Looks at layers while a network runs."""

import pytest
import torch
from torch import nn

from spaces.pruning.groups.hooks import hooked


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))


def test_inputs_before_outputs_after_in_the_order_of_the_run(network):
    seen, x = [], torch.ones(4, 3)
    layers = {"last": network[2], "first": network[0]}
    with hooked(
        layers, lambda name, x: seen.append(("in", name, x)), lambda name, y: seen.append(("out", name, y))
    ):
        y = network(x)
    assert [s[:2] for s in seen] == [("in", "first"), ("out", "first"), ("in", "last"), ("out", "last")]
    assert seen[0][2] is x
    assert seen[3][2] is y


def test_nothing_is_left_behind_even_after_an_error(network):
    def fail(name, x):
        raise KeyError(name)

    with pytest.raises(KeyError, match="second"), hooked({"second": network[2]}, before=fail):
        network(torch.ones(1, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network)
    network(torch.ones(1, 3))

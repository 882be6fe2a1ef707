"""Hooks on the inputs and outputs of layers."""

import pytest
import torch
from torch import nn

from spaces.pruning.groups.hooks import hooked


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))


def test_hooks_are_called_with_inputs_and_outputs_in_execution_order(network):
    calls, x = [], torch.ones(4, 3)
    layers = {"last": network[2], "first": network[0]}
    with hooked(
        layers, lambda name, x: calls.append(("in", name, x)), lambda name, y: calls.append(("out", name, y))
    ):
        y = network(x)
    assert [call[:2] for call in calls] == [
        ("in", "first"),
        ("out", "first"),
        ("in", "last"),
        ("out", "last"),
    ]
    assert calls[0][2] is x
    assert calls[3][2] is y


def test_hooks_are_removed_even_after_an_error(network):
    def fail(name, x):
        raise KeyError(name)

    with pytest.raises(KeyError, match="second"), hooked({"second": network[2]}, before=fail):
        network(torch.ones(1, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network)
    network(torch.ones(1, 3))

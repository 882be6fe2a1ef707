"""The values of each channel of a parameter."""

import numpy as np
import pytest
import torch

from spaces.pruning.groups.group import Slice
from spaces.pruning.groups.slices import channel_values


@pytest.mark.parametrize(
    ("axis", "rows", "wanted"),
    [
        (0, [[0], [1]], [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (1, [[0], [3]], [[0, 4], [3, 7]]),
        (1, [[0, 1], [2, 3]], [[0, 4, 1, 5], [2, 6, 3, 7]]),
        (1, [[2, 0]], [[2, 6, 0, 4]]),
    ],
)
def test_each_channel_gets_all_its_rows(axis, rows, wanted):
    tensor = torch.arange(8).reshape(2, 4)
    found = channel_values(tensor, Slice("weight", axis, np.array(rows), "in"))
    assert found.tolist() == wanted
    assert found.dtype == torch.float64


def test_a_parameter_gives_plain_values():
    parameter = torch.nn.Parameter(torch.ones(3))
    found = channel_values(parameter, Slice("bias", 0, np.arange(3)[:, None], "out"))
    assert found.tolist() == [[1.0]] * 3
    assert not found.requires_grad

import pytest
import torch
from torch import nn
from torch.nn import functional

from spaces.architectures.group_attention import (
    GlobalAttention,
    MediumRangeAttention,
    Peaks,
    PointAttention,
    sheared,
    unsheared,
)


@pytest.mark.parametrize("size", [(3, 3), (2, 5), (4, 1)])
def test_a_sheared_row_is_moved_by_its_index(size):
    x = torch.randn(2, 3, *size)
    moved = sheared(x)
    for at in range(size[0]):
        assert torch.equal(moved[:, :, at, at : at + size[1]], x[:, :, at])
    assert moved.count_nonzero() == x.count_nonzero()
    assert torch.equal(unsheared(moved, size[1]), x)


@pytest.mark.parametrize("ties", [False, True])
def test_peaks_go_back_to_where_the_maxima_were(ties):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 8)
    x = x.round().relu() if ties else x
    inner = nn.Conv2d(3, 3, 1)
    values, places = functional.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(Peaks(inner)(x), functional.max_unpool2d(inner(values), places, 2))


def test_ranges_see_as_far_as_their_names_say():
    """A change of one pixel changes the outputs within each range's reach."""
    torch.manual_seed(0)
    x = torch.randn(1, 8, 24, 24)
    other = x.clone()
    other[..., 12, 12] += 3
    changed = {}
    for layer in (
        PointAttention(8, "gelu"),
        MediumRangeAttention(8, 3, (24, 24)),
        GlobalAttention(8, 4, "gelu"),
    ):
        with torch.no_grad():
            differ = (layer.eval()(x) - layer(other)).abs().amax(dim=(0, 1)) > 1e-7
        changed[type(layer)] = int(differ.sum())
    assert changed[PointAttention] == 1
    assert 1 < changed[MediumRangeAttention] < 24 * 24
    assert changed[GlobalAttention] == 24 * 24


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (8, 4)])
def test_the_medium_range_works_on_small_images(size):
    assert MediumRangeAttention(4, 5, size)(torch.randn(2, 4, *size)).shape == (2, 4, *size)

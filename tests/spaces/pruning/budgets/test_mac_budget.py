import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import StageError
from spaces.pruning.budgets.mac_budget import CLOSE, check_level, kept_within
from spaces.pruning.budgets.mac_shares import MacShares
from spaces.pruning.criteria.testing import small_groups
from spaces.pruning.sparsity.testing import small_shares

GROUPS = small_groups()


@st.composite
def scores(draw):
    order = draw(st.permutations(range(sum(g.n_channels for g in GROUPS))))
    flat = torch.tensor(order, dtype=torch.float64)
    return dict(zip([g.name for g in GROUPS], torch.split(flat, [g.n_channels for g in GROUPS]), strict=True))


@given(scores(), st.floats(0.15, 1.0))
def test_keeps_to_the_budget_and_empties_nothing(values, level):
    kept = kept_within(small_shares(), values, level)
    assert float(small_shares().of(kept)) <= level
    for name, mask in kept.items():
        assert bool(mask[int(values[name].argmax())])


@given(scores(), st.floats(0.15, 0.95))
def test_no_channel_fits_any_more_unless_the_budget_is_nearly_used_up(values, level):
    shares = small_shares()
    kept = kept_within(shares, values, level)
    if float(shares.of(kept)) >= (1 - CLOSE) * level:
        return
    for name, mask in kept.items():
        for at in torch.nonzero(~mask).flatten().tolist():
            more = {k: v.clone() for k, v in kept.items()}
            more[name][at] = True
            assert float(shares.of(more)) > level


@pytest.mark.parametrize("best_last", [True, False])
def test_the_best_channels_of_a_group_are_kept(best_last):
    values = {g.name: torch.arange(g.n_channels).double() * (1 if best_last else -1) for g in GROUPS}
    kept = kept_within(small_shares(), values, 0.5)
    assert sum(int(mask.sum()) for mask in kept.values()) < sum(g.n_channels for g in GROUPS)
    for group in GROUPS:
        mask, n_kept = kept[group.name].tolist(), int(kept[group.name].sum())
        best = [True] * n_kept + [False] * (group.n_channels - n_kept)
        assert mask == (best[::-1] if best_last else best)


def test_of_the_channels_with_minus_infinity_only_the_best_is_kept():
    values = {g.name: torch.full((g.n_channels,), -torch.inf).double() for g in GROUPS}
    assert [int(mask.sum()) for mask in kept_within(small_shares(), values, 1.0).values()] == [1, 1, 1]


def test_a_level_below_the_least_possible_share_raises():
    check_level(small_shares(), small_shares().least(), "sparsify")
    with pytest.raises(
        StageError, match=r"sparsify.level=0.01 cannot be met: with one channel left in each of the 3"
    ):
        check_level(small_shares(), 0.01, "sparsify")


def test_a_network_in_which_no_channel_can_be_cut_raises():
    with pytest.raises(StageError, match="no channel of this network can be cut"):
        check_level(MacShares((), {"a.weight": 8}, {"a.weight": (2, 4)}), 0.5, "sparsify")

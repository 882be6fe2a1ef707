import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.pruning.budgets.arithmetic import CutArithmetic
from spaces.pruning.budgets.mac_shares import MacShares
from spaces.pruning.criteria.testing import small_groups, small_network
from spaces.pruning.groups.counts import layer_counts, total
from spaces.pruning.groups.cut import cut
from spaces.pruning.sparsity.testing import SHAPE, small_shares

GROUPS = small_groups()
KEPT = st.tuples(*(st.lists(st.booleans(), min_size=g.n_channels, max_size=g.n_channels) for g in GROUPS))


def mask(values):
    return torch.tensor(values, dtype=torch.float64)


@given(KEPT)
def test_equals_the_arithmetic_of_the_cut(kept):
    arithmetic = CutArithmetic(small_network(), GROUPS, SHAPE)
    counts = np.array([sum(values) for values in kept])
    dense = arithmetic.macs(arithmetic.n_channels)
    found = small_shares().of({g.name: mask(values) for g, values in zip(GROUPS, kept, strict=True)})
    assert float(found) == pytest.approx(float(arithmetic.macs(counts) / dense), abs=1e-12)


def test_equals_the_counts_of_the_cut_network():
    module = small_network()
    kept = {g.name: np.arange(0, g.n_channels, 2) for g in GROUPS}
    masks = {g.name: mask(np.arange(g.n_channels) % 2 == 0) for g in GROUPS}
    dense, small = (total(layer_counts(m, SHAPE).values()).macs for m in (module, cut(module, GROUPS, kept)))
    assert float(small_shares().of(masks)) == pytest.approx(small / dense, abs=1e-12)


def test_costs_are_what_one_channel_less_saves():
    shares = small_shares()
    whole = {g.name: torch.ones(g.n_channels).double() for g in GROUPS}
    assert float(shares.of(whole)) == 1.0
    for group in GROUPS:
        less = {name: values.clone() for name, values in whole.items()}
        less[group.name][1] = 0
        assert 1 - float(shares.of(less)) == pytest.approx(float(shares.costs()[group.name][1]), abs=1e-12)


def test_least_has_one_channel_in_every_group():
    one = {g.name: torch.eye(g.n_channels)[0] for g in GROUPS}
    assert small_shares().least() == pytest.approx(float(small_shares().of(one)), abs=1e-12)


def test_a_network_without_groups_keeps_everything():
    shares = MacShares((), {"a.weight": 8}, {"a.weight": (2, 4)})
    assert float(shares.of({})) == 1.0
    assert shares.costs() == {}

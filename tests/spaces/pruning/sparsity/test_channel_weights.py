from copy import deepcopy

import pytest
import torch

from spaces.pruning.criteria.testing import small_groups, small_network
from spaces.pruning.sparsity.channel_weights import channel_norms, scale_channels

GROUPS = small_groups()


def test_norms_are_over_filters_and_norms():
    module = small_network()
    parameters = dict(module.named_parameters())
    norms = channel_norms(GROUPS[1], parameters)  # conv2 has a bias, bn2 follows
    parts = (module.conv2.weight[3], module.conv2.bias[3], module.bn2.weight[3], module.bn2.bias[3])
    expected = sum(float(p.detach().double().square().sum()) for p in parts) ** 0.5
    assert float(norms[3]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_scaling_scales_the_norms_and_nothing_else(group):
    module = small_network()
    before = deepcopy(module.state_dict())
    parameters = dict(module.named_parameters())
    norms = channel_norms(group, parameters)
    factors = torch.linspace(0.0, 2.0, group.n_channels).double()
    scale_channels(group, parameters, factors)
    assert torch.allclose(channel_norms(group, parameters), factors * norms, rtol=1e-6)
    made = {part.name for part in group.slices if part.role != "in" and part.name in parameters}
    after = module.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == made


def test_scaling_can_be_restricted_to_some_modules():
    module = small_network()
    before = deepcopy(module.state_dict())
    scale_channels(GROUPS[1], dict(module.named_parameters()), torch.zeros(5), ("bn2",))
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"bn2.weight", "bn2.bias"}

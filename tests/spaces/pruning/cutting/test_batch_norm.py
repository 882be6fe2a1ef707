"""Statistics after re-estimation are those of each BatchNorm's inputs."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from spaces.pruning.criteria.testing import small_network
from spaces.pruning.cutting import batch_norm
from spaces.pruning.cutting.batch_norm import reestimate_batch_norm


def inputs(n=50, seed=0):
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def input_statistics(module, x):
    """Returns mean and unbiased variance of the inputs of each BatchNorm in eval mode."""
    statistics = {}

    def record(name):
        def hook(_, arguments):
            values = arguments[0].double().transpose(0, 1).flatten(1)
            statistics[name] = (values.mean(1), values.var(1))

        return hook

    hooks = [
        part.register_forward_pre_hook(record(name))
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return statistics


def test_statistics_are_those_of_the_inputs():
    module, x = small_network(), inputs(400)
    assert reestimate_batch_norm(module, x)
    for name, (mean, variance) in input_statistics(module, x).items():
        part = module.get_submodule(name)
        assert torch.allclose(part.running_mean.double(), mean, atol=1e-3)
        assert torch.allclose(part.running_var.double(), variance, rtol=5e-3)


def test_the_first_does_not_depend_on_the_batch_size_and_the_others_hardly():
    results = []
    for size in (None, 50, 17, 7):
        module = small_network()
        reestimate_batch_norm(module, inputs(), size)
        results.append(module)
    whole = results[0]
    for other in results[1:]:
        assert torch.allclose(other.bn1.running_mean, whole.bn1.running_mean, atol=1e-6)
        assert torch.allclose(other.bn1.running_var, whole.bn1.running_var, rtol=1e-5)
        assert torch.allclose(other.bn2.running_var, whole.bn2.running_var, rtol=0.2)


def test_batches_are_pooled_exactly():
    x = torch.cat([inputs(20), inputs(31, 1) + 3])
    module = nn.Sequential(nn.BatchNorm2d(3)).eval()
    reestimate_batch_norm(module, x, 20)
    values = x.double().transpose(0, 1).flatten(1)
    assert np.allclose(module[0].running_mean, values.mean(1), atol=1e-6)
    assert np.allclose(module[0].running_var, values.var(1), rtol=1e-6)


def test_re_estimation_is_idempotent():
    module, x = small_network(), inputs()
    reestimate_batch_norm(module, x)
    before = copy.deepcopy(module.state_dict())
    reestimate_batch_norm(module, x)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_only_the_statistics_change(training):
    module = small_network().train(training)
    module.bn2.eval()
    module.bn1.momentum = None
    before = copy.deepcopy(module)
    reestimate_batch_norm(module, inputs())
    changed = [n for n, v in module.state_dict().items() if not torch.equal(v, before.state_dict()[n])]
    assert changed == ["bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"]
    assert [m.training for m in module.modules()] == [m.training for m in before.modules()]
    assert module.bn1.track_running_stats
    assert module.bn1.momentum is None
    assert not any(part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(3, 2, 1)),
        nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)),
        nn.Sequential(nn.GroupNorm(1, 3)),
    ],
)
def test_without_statistics_nothing_happens(module):
    before = copy.deepcopy(module.state_dict())
    assert not reestimate_batch_norm(module.eval(), inputs())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_one_example_has_no_variance():
    module = small_network()
    assert not reestimate_batch_norm(module, inputs(1))


def test_no_batch_has_a_single_example():
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108)).eval()
    x = inputs(9)
    reestimate_batch_norm(module, x, 4)  # a batch of one would have no variance
    assert np.allclose(module[1].running_mean, x.flatten(1).mean(0), atol=1e-6)


def test_dropout_is_off():
    module, x = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3)).train(), inputs()
    reestimate_batch_norm(module, x)
    assert np.allclose(module[1].running_mean, x.mean((0, 2, 3)), atol=1e-5)


def test_memory_bounds_a_batch(monkeypatch):
    monkeypatch.setattr(batch_norm, "MOST_BYTES", 10 * 6 * 36 * 4)  # ten examples of the widest layer
    module, x, sizes = small_network(), inputs(), []
    module.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    reestimate_batch_norm(module, x)
    assert max(sizes) == 10
    assert sum(sizes[1:]) == len(x)

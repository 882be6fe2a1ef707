"""SlimSAM's disturbed Taylor scores."""

from dataclasses import replace

import pytest
import torch

from spaces.errors import ConfigError, StageError
from spaces.pruning.criteria.disturbed_taylor import DisturbedTaylor
from spaces.pruning.criteria.scoring.gradients import first_order
from spaces.pruning.criteria.testing import small_evidence, small_groups
from spaces.pruning.groups.hooks import hooked


@pytest.fixture
def evidence():
    return small_evidence(small_groups())


def seeded(evidence, seed=0):
    return replace(evidence, generator=torch.Generator().manual_seed(seed))


def test_without_noise_all_gradients_are_exactly_0(evidence):
    def plain(outputs, part):
        return (outputs - outputs.detach()).square().mean()

    for effects in first_order(evidence.module, evidence.groups, evidence.inputs, 16, plain):
        assert all(float(e.abs().max()) == 0.0 for e in effects.values())
    for scores in DisturbedTaylor(sigma=0.0).scores(evidence).values():
        assert scores.tolist() == [0.0] * len(scores)


def test_with_noise_every_channel_with_an_effect_has_a_score(evidence):
    dead = (torch.relu(_fc1(evidence)) == 0).all(dim=0)
    for name, scores in DisturbedTaylor(sigma=0.01).scores(evidence).items():
        silent = dead if name == "fc1.weight" else torch.zeros(len(scores), dtype=torch.bool)
        assert torch.equal(scores == 0, silent)


def _fc1(evidence):
    found = []
    with hooked({"fc1": evidence.module.fc1}, after=lambda _, y: found.append(y)), torch.no_grad():
        evidence.module(evidence.inputs)
    return torch.cat(found)


def test_scores_are_absolute_changes_averaged_over_batches_and_tensors(evidence):
    batch_size, module = 16, evidence.module
    scores = DisturbedTaylor(0.1, batch_size).scores(seeded(evidence))
    generator = torch.Generator().manual_seed(0)
    total, last = torch.zeros(8, dtype=torch.float64), small_groups()[2]
    for x in evidence.inputs.split(batch_size):
        module.zero_grad()
        y = module(x)
        noise = 0.1 * y.detach().std(correction=0) * torch.randn(y.shape, generator=generator)
        (y - (y.detach() + noise)).square().mean().backward()
        fc1, bias, fc2 = module.fc1.weight, module.fc1.bias, module.fc2.weight
        total += (
            (fc1 * fc1.grad).abs().sum(dim=1) + (bias * bias.grad).abs() + (fc2 * fc2.grad).abs().sum(dim=0)
        )
    assert torch.allclose(scores[last.name], (total / total.mean()).detach(), rtol=1e-4)


def test_the_size_of_the_noise_hardly_matters(evidence):
    small, large = (DisturbedTaylor(sigma).scores(seeded(evidence)) for sigma in (0.01, 1.0))
    for name, scores in small.items():
        assert torch.allclose(scores, large[name], rtol=1e-3)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_the_scale_of_the_outputs_does_not_matter(evidence, factor):
    plain = DisturbedTaylor().scores(seeded(evidence))
    evidence.module.fc2.weight.data *= factor
    evidence.module.fc2.bias.data *= factor
    for name, scores in DisturbedTaylor().scores(seeded(evidence)).items():
        assert torch.allclose(scores, plain[name], rtol=1e-3)


def test_the_noise_comes_from_the_generator(evidence):
    one, other = (DisturbedTaylor().scores(seeded(evidence, seed)) for seed in (1, 2))
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_outputs_may_have_any_shape(evidence):
    evidence.module.fc2 = torch.nn.Sequential(evidence.module.fc2, torch.nn.Unflatten(1, (2, 2)))
    groups = small_groups()[:2]
    scores = DisturbedTaylor().scores(replace(evidence, groups=groups, labels=None))
    assert all(float(s.min()) > 0 for s in scores.values())


def test_no_examples_are_an_error(evidence):
    with pytest.raises(StageError, match="needs examples"):
        DisturbedTaylor().scores(replace(evidence, inputs=evidence.inputs[:0]))


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_sigma_is_a_number_of_at_least_0(sigma):
    with pytest.raises(ConfigError, match="sigma must be"):
        DisturbedTaylor(sigma)


def test_a_batch_has_examples():
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        DisturbedTaylor(batch_size=0)

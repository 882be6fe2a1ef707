"""First-order Taylor scores."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from spaces.errors import ConfigError, StageError
from spaces.pruning.criteria.taylor import Taylor
from spaces.pruning.criteria.testing import small_evidence, small_groups


@pytest.fixture
def evidence():
    return small_evidence(small_groups())


def by_backward(evidence, batch_size):
    """Returns the same scores from the network's own gradients, channel by channel."""
    module, named = evidence.module, dict(evidence.module.named_parameters())
    total = {g.name: torch.zeros(g.n_channels, dtype=torch.float64) for g in evidence.groups}
    for x, y in zip(evidence.inputs.split(batch_size), evidence.labels.split(batch_size), strict=True):
        module.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        effects = {name: (p.detach() * p.grad).double() for name, p in named.items()}
        for group in evidence.groups:
            for channel in range(group.n_channels):
                change = sum(
                    float(
                        effects[part.name].index_select(part.axis, torch.from_numpy(part.rows[channel])).sum()
                    )
                    for part in group.slices
                    if part.name in effects
                )
                total[group.name][channel] += len(x) * change**2
    return {name: values / values.mean() for name, values in total.items()}


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_scores_are_mean_squares_of_first_order_changes(evidence, batch_size):
    scores = Taylor(batch_size).scores(evidence)
    wanted = by_backward(small_evidence(small_groups()), batch_size)
    assert set(scores) == {"conv1.weight", "conv2.weight", "fc1.weight"}
    for name, values in wanted.items():
        assert torch.allclose(scores[name], values, rtol=1e-3, atol=1e-6)


def test_frozen_parameters_are_scored_too(evidence):
    wanted = Taylor().scores(evidence)
    for parameter in evidence.module.parameters():
        parameter.requires_grad_(False)
    scores = Taylor().scores(evidence)
    assert all(torch.equal(scores[name], values) for name, values in wanted.items())
    assert not any(p.requires_grad for p in evidence.module.parameters())


def test_scores_predict_the_change_of_the_loss_when_a_weak_channel_is_removed(evidence):
    """To first order: of channels with little effect, the one with the larger score changes the loss more."""
    module = evidence.module
    for channel in range(5):
        module.fc1.weight.data[:, 9 * channel : 9 * channel + 9] *= 1e-3
    consumers = tuple(
        replace(g, slices=tuple(s for s in g.slices if s.role == "in")) for g in small_groups()[1:2]
    )
    one_batch = Taylor(len(evidence.inputs))
    scores = one_batch.scores(replace(evidence, groups=consumers))["conv2.weight"]
    with torch.no_grad():
        loss = functional.cross_entropy(module.double()(evidence.inputs.double()), evidence.labels)
        changes = []
        for channel in range(5):
            part = module.fc1.weight.data[:, 9 * channel : 9 * channel + 9]
            kept = part.clone()
            part.zero_()
            changed = functional.cross_entropy(module(evidence.inputs.double()), evidence.labels)
            changes.append(float((changed - loss) ** 2))
            part.copy_(kept)
    wanted = torch.tensor(changes, dtype=torch.float64)
    assert torch.allclose(scores, wanted / wanted.mean(), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("labels", [None, torch.full((40,), -1)])
def test_labels_that_are_missing_are_an_error(evidence, labels):
    with pytest.raises(StageError, match=r"criterion=taylor needs a label.*disturbed_taylor"):
        Taylor().scores(replace(evidence, labels=labels))


def test_no_examples_are_an_error(evidence):
    with pytest.raises(StageError, match="needs examples"):
        Taylor().scores(replace(evidence, inputs=evidence.inputs[:0], labels=evidence.labels[:0]))


def test_labels_beyond_the_outputs_are_an_error(evidence):
    with pytest.raises(StageError, match=r"\(32, 4\) and the largest label is 7"):
        Taylor().scores(replace(evidence, labels=evidence.labels + 4))


def test_a_batch_has_examples():
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        Taylor(0)

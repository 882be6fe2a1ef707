"""First-order effects, without side effects on the network."""

import torch
from torch import nn

from spaces.pruning.criteria.scoring.gradients import first_order
from spaces.pruning.criteria.testing import small_evidence, small_groups


def test_only_parameters_that_shrink_with_the_groups_have_effects():
    evidence = small_evidence()
    effects = next(
        first_order(evidence.module, small_groups()[2:], evidence.inputs, 8, lambda y, part: y.sum())
    )
    assert {name: tuple(e.shape) for name, e in effects.items()} == {
        "fc1.weight": (8, 45),
        "fc1.bias": (8,),
        "fc2.weight": (4, 8),
    }


def test_effects_are_weights_times_gradients_batch_by_batch():
    evidence = small_evidence()
    x, module = evidence.inputs, evidence.module
    parts = []

    def loss(outputs, part):
        parts.append(part)
        return outputs.square().mean()

    found = list(first_order(module, evidence.groups, x, 24, loss))
    assert parts == [slice(0, 24), slice(24, 40)]
    assert all(p.grad is None for p in module.parameters())
    for part, effects in zip(parts, found, strict=True):
        module.zero_grad()
        module(x[part]).square().mean().backward()
        for name, parameter in module.named_parameters():
            if name in effects:
                assert torch.allclose(effects[name], parameter.detach() * parameter.grad, atol=1e-7)


def test_parameters_that_the_loss_does_not_depend_on_have_no_effect():
    evidence = small_evidence()
    evidence.module.fc1 = nn.Linear(45, 8)
    effects = next(
        first_order(evidence.module, evidence.groups, evidence.inputs, 8, lambda y, part: 0.0 * y.sum())
    )
    assert all(not e.any() for e in effects.values())

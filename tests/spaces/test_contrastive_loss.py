import numpy as np
import pytest
import torch

from spaces.task_losses import LOSSES


def test_the_contrastive_loss_is_that_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 1])
    z = (outputs / outputs.norm(dim=1, keepdim=True)).numpy()
    wanted = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        total = sum(np.exp(z[i] @ z[a] / 0.1) for a in others)
        same = [p for p in others if labels[p] == labels[i]]
        wanted.append(-np.mean([np.log(np.exp(z[i] @ z[p] / 0.1) / total) for p in same]) if same else 0.0)
    found = LOSSES["contrastive"].each(outputs, labels, 0.0)
    assert found.tolist() == pytest.approx(wanted)
    assert wanted[3] == 0.0


def test_the_contrastive_loss_has_finite_gradients():
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.autograd.backward(LOSSES["contrastive"].each(outputs, torch.tensor([0, 0, 1, 1, 2]), 0.0).mean())
    assert torch.isfinite(outputs.grad).all()
    assert outputs.grad.abs().sum() > 0

import pytest
import torch
from torch.nn import functional

from spaces.errors import StageError
from spaces.pruning.criteria.testing import N_EXAMPLES, small_groups
from spaces.pruning.sparsity.batch_norm_sparsity import NEARLY_ZERO, BatchNormSparsity
from spaces.pruning.sparsity.sparsifier import Aim
from spaces.pruning.sparsity.strength_schedules import STRENGTH_SCHEDULES, strength_at
from spaces.pruning.sparsity.testing import SHAPE, small_subject


@pytest.fixture
def subject():
    return small_subject()


def backward(module):
    inputs = torch.randn(N_EXAMPLES, *SHAPE, generator=torch.Generator().manual_seed(0))
    module.zero_grad()
    torch.autograd.backward(functional.cross_entropy(module(inputs), torch.arange(N_EXAMPLES) % 4))
    return {name: p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize(("schedule", "factor"), [("constant", 1.0), ("linear_decay", 1 - 0.9 * 0.3)])
def test_the_subgradient_is_added_to_scales_only(subject, schedule, factor):
    sparsifier = BatchNormSparsity(subject, Aim(0.5, schedule))
    subject.module.bn1.weight.data[2] = 0.0
    before = backward(subject.module)
    sparsifier.after_backward(3, 10)
    for name, p in subject.module.named_parameters():
        added = (
            factor * 0.5 * p.detach().sign() if name in ("bn1.weight", "bn2.weight") else torch.zeros_like(p)
        )
        assert torch.allclose(p.grad, before[name] + added, atol=1e-7), name


def test_strengths_over_a_training():
    assert [strength_at("constant", 2.0, step, 10) for step in (0, 5, 9)] == [2.0, 2.0, 2.0]
    assert strength_at("linear_decay", 2.0, 0, 10) == 2.0
    assert strength_at("linear_decay", 2.0, 10, 10) == pytest.approx(0.2)
    assert list(STRENGTH_SCHEDULES) == ["constant", "linear_decay"]


def test_a_channel_is_off_where_its_scale_is_small(subject):
    sparsifier = BatchNormSparsity(subject, Aim(0.1))
    subject.module.bn1.weight.data[:] = torch.tensor(
        [1, -1, 1.01 * NEARLY_ZERO, -0.99 * NEARLY_ZERO, 0.0, 0.5]
    )
    on = sparsifier.finish()
    assert on["conv1.weight"].tolist() == [True, True, True, False, False, True]
    assert on["fc1.weight"].tolist() == [True] * 8  # no BatchNorm: left alone


def test_the_error_names_the_layers_that_no_batch_norm_follows():
    plain = small_groups()[2:]
    with pytest.raises(
        StageError, match=r"bn_gamma needs a BatchNorm with scales .* none follows fc1.weight"
    ):
        BatchNormSparsity(small_subject(plain), Aim(0.1))
    with pytest.raises(StageError, match="no channel can be cut"):
        BatchNormSparsity(small_subject(()), Aim(0.1))

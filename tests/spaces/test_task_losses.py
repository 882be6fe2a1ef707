"""Losses by task: values against torch, and which labels they take."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from spaces.errors import StageError
from spaces.models.torch.distillation import distillation_loss
from spaces.task_losses import LOSSES, task_loss


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_cross_entropy_over_positions_leaves_out_those_without_a_class():
    outputs, labels = drawn(3, 4, 5, 5), torch.arange(75).reshape(3, 5, 5) % 4
    labels[0, :2] = -1
    each = LOSSES["cross_entropy"].each(outputs, labels, 0.0)
    for i in range(3):
        wanted = functional.cross_entropy(outputs[i : i + 1], labels[i : i + 1], ignore_index=-1)
        assert each[i] == pytest.approx(float(wanted), rel=1e-5)
    steps = LOSSES["tokens"].each(drawn(2, 6, 4), labels.reshape(-1)[-12:].reshape(2, 6), 0.0)
    wanted = functional.cross_entropy(drawn(2, 6, 4)[0], labels.reshape(-1)[-12:-6])
    assert steps[0] == pytest.approx(float(wanted), rel=1e-5)


def test_numbers_and_yes_or_no():
    outputs, labels = drawn(4, 3), (drawn(4, 3) > 0).float()
    assert torch.allclose(LOSSES["squared"].each(outputs, labels, 0.0), ((outputs - labels) ** 2).mean(1))
    assert torch.allclose(LOSSES["absolute"].each(outputs, labels, 0.0), (outputs - labels).abs().mean(1))
    wanted = functional.binary_cross_entropy_with_logits(outputs, labels, reduction="none").mean(1)
    assert torch.allclose(LOSSES["binary"].each(outputs, labels, 0.0), wanted)
    assert torch.allclose(LOSSES["probability"].each(outputs.sigmoid(), labels, 0.0), wanted, atol=1e-5)
    two, one = drawn(4, 2), labels[:, :1]
    both = functional.cross_entropy(two, one[:, 0].long(), reduction="none")
    assert torch.allclose(LOSSES["binary"].each(two, one, 0.0), both, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "labels", "usable"),
    [
        ("cross_entropy", np.array([0, 2]), True),
        ("cross_entropy", np.array([0, -1]), False),
        ("cross_entropy", np.array([[0, -1], [-1, -1]]), False),
        ("tokens", np.array([[0, -1], [1, 1]]), True),
        ("cross_entropy", np.array([0.5, 1.0]), False),
        ("squared", np.array([0.5, 1.0]), True),
        ("squared", np.array([0.5, np.nan]), False),
        ("squared", np.array([np.zeros(2), np.zeros(3)], object), False),
    ],
)
def test_which_labels_can_be_trained_on(name, labels, usable):
    assert LOSSES[name].usable(labels) is usable


def test_an_unknown_loss_is_refused():
    assert task_loss(None) is None
    with pytest.raises(StageError, match="Unknown loss 'squred'"):
        task_loss("squred")


def test_distillation_is_a_mean_over_positions():
    student, teacher = drawn(2, 5), drawn(2, 5).flip(0)
    once = distillation_loss(student, teacher, 2.0)
    many = [t[:, :, None, None].expand(2, 5, 3, 3) for t in (student, teacher)]
    assert distillation_loss(*many, 2.0) == pytest.approx(float(once), rel=1e-5)
    steps = [t[:, None].expand(2, 7, 5) for t in (student, teacher)]
    assert distillation_loss(*steps, 2.0, class_axis=2) == pytest.approx(float(once), rel=1e-5)


def test_distillation_of_numbers_is_in_units_of_the_teachers_variance():
    teacher = drawn(50, 2)
    assert distillation_loss(teacher, teacher, 4.0, None) == 0
    mean = teacher.mean().expand_as(teacher)
    assert distillation_loss(mean, teacher, 4.0, None) == pytest.approx(1.0, rel=1e-5)
    assert distillation_loss(10 * mean, 10 * teacher, 4.0, None) == pytest.approx(1.0, rel=1e-5)

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.models.torch.distillation import distillation_loss


def logits(seed, n=7, classes=5):
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.floats(0.5, 20.0))
def test_it_is_the_formula(temperature):
    student, teacher = logits(0), logits(1)
    p = (teacher / temperature).softmax(1)
    q = (student / temperature).softmax(1)
    wanted = temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), wanted)


def test_the_loss_is_least_where_student_and_teacher_differ_by_a_constant():
    student = (logits(0) + 3.0).requires_grad_()
    loss = distillation_loss(student, logits(0), 4.0)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(student))


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    torch.autograd.backward(distillation_loss(student, teacher, 2.0))
    assert teacher.grad is None
    assert student.grad.any()


def test_gradients_at_a_high_temperature_are_those_of_matched_logits():
    """For a high temperature, the gradient is `(z - v) / (n N)` of centred logits (section 2.1)."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    torch.autograd.backward(distillation_loss(student, teacher, 1e4))
    centred = [z - z.mean(1, keepdim=True) for z in (student.detach(), teacher)]
    torch.testing.assert_close(student.grad, (centred[0] - centred[1]) / (5 * 7), rtol=1e-3, atol=1e-6)

"""Sensitivities by gradients, against gradients of a network whose second derivatives are known."""

import numpy as np
import pytest
import torch

from spaces.errors import StageError
from spaces.quantization.sensitivity.gradient_losses import Gradients
from spaces.stages.array_split import ArraySplit
from spaces.stages.artifact import Artifact, InputSpec

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 6)).astype(np.float32)
LABELS = RNG.integers(0, 3, 40)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 3)).eval()


def gradients(module, weight, loss="cross_entropy", labels=LABELS, axis=0):
    artifact = Artifact("torch", module, InputSpec((6,)), "digest")
    split = ArraySplit(INPUTS, labels)
    return Gradients(artifact, {"0.weight": weight}, {"0.weight": axis}, split, len(INPUTS), loss)


def expected(module):
    """Returns the mean square of the gradient and the trace of the Hessian of softmax regression."""
    with torch.no_grad():
        p = module(torch.from_numpy(INPUTS)).softmax(1).numpy().astype(np.float64)
    residual = p - np.eye(3)[LABELS]
    squares = np.einsum("nk,ni->ki", residual**2, INPUTS.astype(np.float64) ** 2) / len(INPUTS)
    trace = float(((p * (1 - p)).sum(1) * (INPUTS.astype(np.float64) ** 2).sum(1)).mean())
    return squares, trace


def test_fisher_is_the_mean_square_of_gradient_times_error(linear):
    weight = linear[0].weight.detach().numpy()
    error = RNG.normal(size=weight.shape).astype(np.float32)
    found = gradients(linear, weight).fisher({("0.weight", 4): error})
    squares, _ = expected(linear)
    assert found["0.weight", 4] == pytest.approx(float((squares * error**2).sum()), rel=1e-4)


def test_hessian_is_the_mean_trace_times_the_squared_error(linear):
    weight = linear[0].weight.detach().numpy()
    error = np.full(weight.shape, 0.5, np.float32)
    found = gradients(linear, weight).hessian({("0.weight", 4): error}, seed=0)
    _, trace = expected(linear)
    assert found["0.weight", 4] == pytest.approx(trace / weight.size * 0.25 * weight.size, rel=0.25)


def test_a_folded_scale_leaves_the_loss_as_it_is(linear):
    """The error of a weight that was scaled by `s` is `s` times as large, and its gradient divided by `s`."""
    weight = linear[0].weight.detach().numpy()
    scale = np.array([[2.0], [-0.5], [3.0]], np.float32)
    error = RNG.normal(size=weight.shape).astype(np.float32)
    plain = gradients(linear, weight).fisher({("0.weight", 4): error})["0.weight", 4]
    folded = gradients(linear, weight * scale).fisher({("0.weight", 4): error * scale})["0.weight", 4]
    assert folded == pytest.approx(plain, rel=1e-4)


def test_a_transposed_weight(linear):
    weight = linear[0].weight.detach().numpy()
    error = RNG.normal(size=weight.shape).astype(np.float32)
    plain = gradients(linear, weight).fisher({("0.weight", 4): error})["0.weight", 4]
    other = gradients(linear, weight.T, axis=1).fisher({("0.weight", 4): error.T})["0.weight", 4]
    assert other == pytest.approx(plain, rel=1e-4)


def test_what_does_not_fit_is_named(linear):
    weight = linear[0].weight.detach().numpy()
    with pytest.raises(StageError, match="not the torch network's up to a scale"):
        gradients(linear, weight + RNG.normal(size=weight.shape).astype(np.float32))
    with pytest.raises(StageError, match="gradients need labels"):
        gradients(linear, weight, loss=None)
    with pytest.raises(StageError, match="need a label for every calibration example"):
        gradients(linear, weight, labels=-np.ones(40, np.int64)).fisher({("0.weight", 4): weight})
    artifact = Artifact("torch", linear, InputSpec((6,)), "digest")
    with pytest.raises(StageError, match="x is no parameter"):
        Gradients(artifact, {"x": weight}, {"x": 0}, ArraySplit(INPUTS, LABELS), 4, "cross_entropy")

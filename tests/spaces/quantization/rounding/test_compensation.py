"""Weights that make up for the errors of the layers before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spaces.quantization.plan.plan import Settings, make_plan
from spaces.quantization.plan.source import Sources
from spaces.quantization.plan.weight_grids import WeightGrids
from spaces.quantization.rounding import compensation, gptq
from spaces.quantization.rounding.compensation import Moments, compensated
from spaces.quantization.rounding.gptq import Gptq
from spaces.quantization.rounding.testing import _branched
from spaces.quantization.rounding.walk import Walk
from spaces.stages.artifact import Artifact, InputSpec
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.testing import noise_split

N_OUT, N_IN = 3, 6


def moments_of(x, lacking, shortcut):
    """Of values `(n_in, n)` or `(n_out, n)`, of one group."""
    halves = [tuple((y[:, i::2] @ x[:, i::2].T)[None] for i in (0, 1)) for y in (x, lacking, shortcut)]
    return Moments(*halves)


def example(n, seed=0):
    random = torch.Generator().manual_seed(seed)
    weight, x, lacking, shortcut = (
        torch.randn(shape, generator=random) for shape in ((N_OUT, N_IN), (N_IN, n), (N_IN, n), (N_OUT, n))
    )
    return weight, x, lacking, shortcut


def test_outputs_are_those_of_least_squares():
    weight, x, noise, _ = example(500)
    lacking = 0.3 * torch.roll(x, 1, 0) + 0.01 * noise
    shortcut = 0.5 * x[:N_OUT] ** 3
    found = compensated(weight[None], moments_of(x, lacking, shortcut))[0]
    target = weight @ (x + lacking) + shortcut
    best = torch.linalg.lstsq(x.T, target.T).solution.T
    errors = [float(((w @ x - target) ** 2).sum()) for w in (weight, found, best)]
    assert errors[2] <= errors[1] < 1.01 * errors[2] < 0.5 * errors[0]


def test_without_errors_weights_stay():
    weight, x, lacking, shortcut = example(50)
    found = compensated(weight[None], moments_of(x, 0 * lacking, 0 * shortcut))
    assert torch.equal(found[0], weight)


@pytest.mark.parametrize("seed", range(5))
def test_what_does_not_follow_from_the_inputs_is_hardly_fitted(seed):
    """With as few examples as inputs a regression fits any noise, and is much worse on others; one half of them tells this of the other."""
    random = torch.Generator().manual_seed(seed)
    x, lacking, fresh = (torch.randn((40, 40), generator=random) for _ in range(3))
    weight = torch.randn((N_OUT, 40), generator=random)
    moments = moments_of(x, lacking, torch.zeros(N_OUT, 40))
    change = compensated(weight[None], moments)[0] - weight
    fitted = compensation._change(
        sum(moments.halves).double(), weight.double() @ sum(moments.lacking).double(), compensation.RIDGES[0]
    )[0].float()
    scale = (weight @ lacking).square().mean()
    assert (change @ fresh).square().mean() < 0.1 * scale < scale < (fitted @ fresh).square().mean()


@pytest.fixture
def walk():
    artifact = Artifact.onnx(_branched(), InputSpec((3, 8, 8)))
    source = Sources().source(artifact, False, StageContext(None, Cache()))
    settings = Settings(
        scheme="asymmetric", clipping="mse", percentile=99.99, per_channel=True,
        weight_bits=dict.fromkeys(source.network.names, 3), activation_bits=8, activation_type="unsigned",
        weight_type="signed", format="qdq", reduce_range=False, rounding="gptq",
    )  # fmt: skip
    spans = dict.fromkeys(source.network.tensors, (-3.0, 3.0))
    plan = make_plan(source, spans, settings, WeightGrids())
    context = StageContext(noise_split((3, 8, 8), 64, 3), Cache())
    return Walk(source, plan, False, 64, context)


def fresh(walk):
    """The walk with nothing cached."""
    return replace(walk, context=replace(walk.context, cache=Cache()))


def test_errors_of_inputs_and_of_the_shortcut_are_made_up_for(walk, monkeypatch):
    """Of the network's layers one is before an Add, whose other operand the part reads."""
    with_shortcut = []

    def recorded(rows, moments):
        if torch.is_tensor(moments.shortcut[0]):
            with_shortcut.append((rows.double(), moments))
        return compensated(rows, moments)

    monkeypatch.setattr(gptq, "compensated", recorded)
    found, plain = walk.rounded(Gptq()).errors, fresh(walk).rounded(Gptq(compensate=False)).errors
    assert found["head.weight"][1] < 0.6 * plain["head.weight"][1]
    ((rows, moments),) = with_shortcut
    assert np.array_equal(rows[0].numpy(), walk.source.weights["project.weight"][:, :, 0, 0])
    lacking = rows @ sum(moments.lacking).double() + sum(moments.shortcut).double()

    def error(weights):
        return compensation._error(weights - rows, moments.inputs.double(), lacking)

    of_inputs = compensated(rows, replace(moments, shortcut=(0.0, 0.0)))
    assert error(compensated(rows, moments)) < min(error(of_inputs), 0)


def test_one_example_is_no_regression(walk):
    """There is no second half that a correction could be checked on."""
    one = replace(walk, n_images=1)
    found, plain = one.rounded(Gptq()), fresh(one).rounded(Gptq(compensate=False))
    assert all(np.array_equal(found.weights[name], weight) for name, weight in plain.weights.items())

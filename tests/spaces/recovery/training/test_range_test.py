import math

import numpy as np
import pytest
import torch
from torch import nn

from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.training.optimization.optimizers import USUAL_RATES
from spaces.recovery.training.optimization.recipe import Recipe
from spaces.recovery.training.range_test import SPAN, STEPS, peak_rate
from spaces.recovery.training.training import train
from spaces.stages.cache import Cache
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import module_digest

RATES = (0.01 * np.geomspace(1 / SPAN, SPAN, STEPS)).tolist()


def losses(at):
    """The losses of a test that fall up to the learning rate `at`, and rise beyond."""
    return [1 + abs(math.log(rate / at)) for rate in RATES]


@pytest.mark.parametrize("at", [0.001, 0.01, 0.1])
def test_half_the_fastest_rate_is_averaged_with_the_usual_one(at):
    found = peak_rate(RATES, losses(at), usual=0.01)
    assert found == pytest.approx(min(math.sqrt(0.01 * at / 2), at), rel=0.15)


def test_of_equally_good_rates_the_highest_counts():
    flat = [2.0] * 20 + [1.0] * 10 + [5.0] * 10
    assert peak_rate(RATES, flat, usual=0.01) == pytest.approx(math.sqrt(0.01 * RATES[27] / 2))


@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_network_that_diverges_at_once_gets_the_lowest_rate(n):
    assert peak_rate(RATES, [1.0] * n + [math.nan], usual=0.01) == RATES[0]


def test_what_is_not_finite_at_the_end_does_not_count():
    some = losses(0.01)[:25]
    assert peak_rate(RATES, [*some, math.inf], 0.01) == peak_rate(RATES, some, 0.01)


class Scaled(nn.Module):
    """A loss that is `factor` times cross-entropy."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.loss = factor, LabelLoss()

    def forward(self, outputs, batch):
        return self.factor * self.loss(outputs, batch)


def rate_of(module, split, factor=1.0, optimizer="sgd"):
    recipe = Recipe(1, 16, optimizer, learning_rate=None, threads=1)
    context = StageContext(None, Cache(), seed=1, accelerator="cpu")
    return train(
        module, split, recipe, loss=Scaled(factor), context=context, stage="test", key=None
    ).peak_rate


def test_steeper_losses_get_lower_rates(tiny, split):
    rates = [rate_of(tiny(), split, factor) for factor in (0.1, 10.0, 1000.0)]
    assert rates[0] > rates[1] > rates[2]


@pytest.mark.parametrize("optimizer", USUAL_RATES)
def test_rates_are_in_the_range_of_the_optimizer(tiny, split, optimizer):
    usual = USUAL_RATES[optimizer]
    assert usual / SPAN <= rate_of(tiny(), split, optimizer=optimizer) <= usual * SPAN


def test_the_training_is_that_with_the_rate_found(tiny, split):
    tested, given = tiny(), tiny()
    rate = rate_of(tested, split)
    context = StageContext(None, Cache(), seed=1, accelerator="cpu")
    recipe = Recipe(1, 16, learning_rate=rate, threads=1)
    train(given, split, recipe, loss=Scaled(1.0), context=context, stage="test", key=None)
    assert module_digest(tested) == module_digest(given)
    assert all(p.grad is None for p in tested.parameters())


def test_an_interrupted_training_goes_on_with_its_rate(tiny, split):
    class Stop:
        def epoch(self, stage, epoch, n_epochs, module):
            raise InterruptedError

    cache, recipe = Cache(), Recipe(2, 16, learning_rate=None, threads=1)

    def run(module, watch, cache):
        context = StageContext(None, cache, seed=1, accelerator="cpu", watch=watch)
        return train(module, split, recipe, loss=Scaled(1.0), context=context, stage="test", key="key")

    with pytest.raises(InterruptedError):
        run(tiny(), Stop(), cache)
    resumed, whole = tiny(), tiny()
    with torch.random.fork_rng():
        assert run(resumed, None, cache).peak_rate == run(whole, None, Cache()).peak_rate
    assert module_digest(resumed) == module_digest(whole)

"""Learning-rate range test: a few steps whose learning rate rises until the loss does.

After Smith 2015 (arXiv 1506.01186, section 3.3). The loss falls ever faster up to a learning rate that depends on the network, its
scale and the loss, and rises beyond. The peak of a schedule with a warm-up is best at about half of that
rate. A few batches measure it roughly, so the result lies halfway, on a log scale, to the optimizer's usual rate.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from math import isfinite, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spaces.recovery.training.batch import Batch
from spaces.recovery.training.modes import set_train_mode
from spaces.recovery.training.optimization.optimizers import USUAL_RATES, set_learning_rate
from spaces.recovery.training.steps import Steps

STEPS = 40
SPAN = 100.0  # the rates go from the optimizer's usual one divided by this to it times this
WINDOW = 5  # steps whose losses are averaged
DIVERGED = 2.0  # the test ends where the mean loss is this many times the smallest one
AS_GOOD = 1.05  # of mean losses within this factor of the smallest, that at the highest rate counts


def range_test(steps: Steps, generator: torch.Generator) -> float:
    """Returns the peak learning rate to train with. The network and the loss stay as they are.

    Args:
        steps: The steps of a training; its optimizer, of a peak of 1, is used up.
        generator: Source of the order of examples and of their augmentation.
    """
    usual = USUAL_RATES[steps.recipe.optimizer]
    rates = usual * np.geomspace(1 / SPAN, SPAN, STEPS)
    with _restored(steps.trained):
        losses = _losses(steps, rates.tolist(), generator)
    return peak_rate(rates.tolist(), losses, usual)


def peak_rate(rates: Sequence[float], losses: Sequence[float], usual: float) -> float:
    """Returns the peak learning rate for a training, from the losses of a range test.

    Args:
        rates: Learning rate of every step, ascending.
        losses: Loss of the first steps, before the step; the last one may not be finite.
        usual: The optimizer's usual rate.

    Returns:
        The lowest rate if fewer losses than a window are finite.
    """
    finite = [loss for loss in losses if isfinite(loss)]
    if len(finite) < WINDOW:
        return rates[0]
    means = _means(finite)
    fastest = rates[int(np.flatnonzero(means <= AS_GOOD * means.min())[-1]) + WINDOW // 2]
    return min(sqrt(usual * fastest / 2), fastest)


def _losses(steps: Steps, rates: Sequence[float], generator: torch.Generator) -> list[float]:
    """Returns the loss before each step, up to the one that shows divergence."""
    steps.trained.train()
    set_train_mode(steps.trained["network"], steps.whole)
    losses: list[float] = []
    for rate, batch in zip(rates, _endless(steps, generator), strict=False):
        set_learning_rate(steps.optimizer, rate)
        losses.append(float(steps.step(batch, 0)))
        if not isfinite(losses[-1]) or _has_diverged(losses):
            break
    return losses


def _has_diverged(losses: Sequence[float]) -> bool:
    if len(losses) < WINDOW:
        return False
    means = _means(losses)
    return bool(means[-1] > DIVERGED * means.min())


def _means(losses: Sequence[float]) -> NDArray[np.float64]:
    return np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")


def _endless(steps: Steps, generator: torch.Generator) -> Iterator[Batch]:
    for _ in count():
        yield from steps.batches(generator)


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Puts parameters and buffers back when the block ends."""
    tensors = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.data.copy_(value)
        module.zero_grad(set_to_none=True)

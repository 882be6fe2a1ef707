"""The optimizers that a recipe can name, with the learning rate and weight decay of each parameter."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from spaces.recovery.training.optimization.recipe import Recipe

Groups = list[dict[str, Any]]


def _sgd(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, fused=True)


def _adam(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, betas=(momentum, 0.999), fused=True)


def _adamw(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=(momentum, 0.999), fused=True)


OPTIMIZERS: dict[str, Callable[[Groups, float], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}

USUAL_RATES = {"sgd": 0.01, "adam": 0.002, "adamw": 0.002}
"""Peak learning rate of each optimizer that suits most networks in fine-tuning, at batches of 64."""


def make_optimizer(
    recipe: Recipe, peak_rate: float, trained: nn.ModuleDict, factors: Mapping[str, float] | None
) -> torch.optim.Optimizer:
    """Returns an optimizer over the parameters that require gradients.

    Every parameter group has `peak`, its peak learning rate. Biases and BatchNorm's vectors get no weight
    decay.

    Args:
        recipe: The optimizer, its momentum and weight decay.
        peak_rate: Peak learning rate.
        trained: The network, as `network`, and the loss if that is a module.
        factors: Factor on the learning rate by name of the network's parameter; 1 for the others.
    """
    by_rate: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.named_parameters():
        if parameter.requires_grad:
            peak = peak_rate * (factors or {}).get(name.removeprefix("network."), 1.0)
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            by_rate.setdefault((peak, decay), []).append(parameter)
    groups = [
        {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), parameters in by_rate.items()
    ]
    return OPTIMIZERS[recipe.optimizer](groups, recipe.momentum)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]

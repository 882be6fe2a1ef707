"""Learning-rate factors by block, after HierarchicalPrune: sensitive blocks are changed least.

Its sensitivity-guided distillation scales each block's update by `1 / dP`, where dP is the loss of quality
without the block; its position-wise preservation freezes the blocks before the first one that was cut. Our
own choices are the bounds, and how dP is measured: without labels, and by disturbing blocks instead of
removing them.
"""

import copy
from collections.abc import Callable
from math import exp, log

import torch
from torch import Tensor, nn

from spaces.stages.torch_outputs import first_output

BOUND = 4.0  # factors lie in [1 / BOUND, BOUND]
DISTURBANCE = 0.1  # standard deviation of the noise on weights, relative to that of their tensor
EXAMPLES = 128  # for measuring sensitivities


def blocks(module: nn.Module) -> dict[str, list[str]]:
    """Returns the names of the parameters of every block, in order.

    A block is named by a parameter's name up to its first number (`layer1.0`, `features.3`, `encoder.layers.2`), else up to
    its first dot (`conv1`, `linear`).
    """
    names: dict[str, list[str]] = {}
    for name, _ in module.named_parameters():
        parts = name.split(".")
        end = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
        names.setdefault(".".join(parts[: end + 1]), []).append(name)
    return names


def sensitivities(module: nn.Module, inputs: Tensor, seed: int) -> dict[str, float]:
    """Returns, by block, the mean squared change of the outputs when noise is added to the block's weights.

    Args:
        module: The network, in eval mode; left as it is.
        inputs: Examples `(n, *input.shape)`.
        seed: Seed of the noise.
    """
    changed = copy.deepcopy(module)
    parameters = dict(changed.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    with torch.no_grad():
        reference = first_output(module(inputs))
        for block, names in blocks(module).items():
            before = {name: parameters[name].clone() for name in names}
            for name in names:
                _disturb(parameters[name], generator)
            changes[block] = float((first_output(changed(inputs)) - reference).square().mean())
            for name, value in before.items():
                parameters[name].copy_(value)
    return changes


def inverse_sensitivity(module: nn.Module, teacher: nn.Module, inputs: Tensor, seed: int) -> dict[str, float]:
    """Returns `1 / dP` by parameter, scaled to a geometric mean of 1 over blocks, clipped to `BOUND`."""
    del teacher
    losses = {block: max(value, 1e-12) for block, value in sensitivities(module, inputs, seed).items()}
    mean = exp(sum(log(value) for value in losses.values()) / len(losses))
    factors = {block: min(max(mean / value, 1 / BOUND), BOUND) for block, value in losses.items()}
    return {name: factors[block] for block, names in blocks(module).items() for name in names}


def frozen_prefix(module: nn.Module, teacher: nn.Module, inputs: Tensor, seed: int) -> dict[str, float]:
    """Returns 0 for parameters of the blocks before the first one that was cut, 1 for the others; 1 if nothing was cut."""
    del inputs, seed
    theirs, ours = _shapes(teacher), _shapes(module)
    order = list(blocks(teacher))
    cut = next((block for block in order if ours.get(block) != theirs[block]), order[0])
    before = order[: order.index(cut)]
    return {name: float(block not in before) for block, names in blocks(module).items() for name in names}


# By value of the knob: maps network, teacher, examples and seed to learning-rate factors by parameter.
BLOCK_WEIGHTS: dict[str, Callable[[nn.Module, nn.Module, Tensor, int], dict[str, float]]] = {
    "inverse_sensitivity": inverse_sensitivity,
    "frozen_prefix": frozen_prefix,
}


def _shapes(module: nn.Module) -> dict[str, list[tuple[int, ...]]]:
    parameters = dict(module.named_parameters())
    return {
        block: [tuple(parameters[name].shape) for name in names] for block, names in blocks(module).items()
    }


def _disturb(parameter: Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(parameter.shape, generator=generator)
    parameter.add_(DISTURBANCE * parameter.std(correction=0) * noise)

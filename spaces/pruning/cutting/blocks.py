"""Removal of whole blocks: how important each block is, and which ones to remove.

The choice by position and sensitivity follows HierarchicalPrune. With blocks numbered i = 1 ... B from the
input on and `dP(i)` the change of the outputs without block i,
`eligibility(i) = exp((i - B) / B) / (dP(i) + eps)`; the most eligible blocks are removed. (The paper's score,
read literally, would prefer early blocks. This follows its intent: of equally important blocks, late ones are
removed first.) The alternative measure is the usual one of layer pruning, `1 - cos(x_in, x_out)`, computed
for all blocks in one run.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import exp
from types import MappingProxyType

import torch
from torch import Tensor, nn

from spaces.pruning.groups.hooks import hooked
from spaces.stages.torch_outputs import first_output

EPSILON = 1e-6
BATCH_SIZE = 64

Changes = dict[str, float]
"""Importance of each block, at least 0, by name, in the network's order."""


def drop_blocks(module: nn.Module, names: Sequence[str]) -> nn.Module:
    """Returns a copy of a network in which identities replace the named blocks.

    Args:
        module: The network; stays as it is.
        names: Blocks of `block_search.removable_blocks`.
    """
    smaller = copy.deepcopy(module)
    for name in names:
        _replace(smaller, name, nn.Identity())
    return smaller


def most_eligible(changes: Mapping[str, float], n_blocks: int) -> list[str]:
    """Returns the blocks to remove, in the network's order.

    Args:
        changes: The importance of every block, in the network's order.
        n_blocks: How many to remove.
    """
    total = len(changes)
    scores = {
        name: exp((i - total) / total) / (change + EPSILON)
        for i, (name, change) in enumerate(changes.items(), start=1)
    }
    chosen = sorted(scores, key=scores.__getitem__, reverse=True)[:n_blocks]
    return [name for name in changes if name in chosen]


def output_changes(module: nn.Module, names: Sequence[str], inputs: Tensor) -> Changes:
    """Returns the mean squared change of the outputs without each block, relative to their mean square.

    Args:
        module: The network, in eval mode; stays as it is.
        names: Its blocks.
        inputs: Examples `(n, *input.shape)`.
    """
    reference = _outputs(module, inputs)
    power = float(reference.square().mean())
    changes = {}
    for name in names:
        with _without(module, name):
            change = float((_outputs(module, inputs) - reference).square().mean())
        changes[name] = change / power if power > 0 else change
    return changes


def cosine_distances(module: nn.Module, names: Sequence[str], inputs: Tensor) -> Changes:
    """Returns `1 - cos(x_in, x_out)` of each block, averaged over examples.

    Args:
        module: The network, in eval mode; stays as it is.
        names: Its blocks.
        inputs: Examples `(n, *input.shape)`.
    """
    sums = dict.fromkeys(names, 0.0)
    block_inputs: dict[str, Tensor] = {}

    def enter(name: str, x: Tensor) -> None:
        block_inputs[name] = x.detach().double().flatten(1).clone()  # the block may work in place

    def leave(name: str, y: Tensor) -> None:
        cosines = nn.functional.cosine_similarity(block_inputs.pop(name), y.detach().double().flatten(1))
        sums[name] += float((1 - cosines).clamp(min=0).sum())

    with hooked({name: module.get_submodule(name) for name in names}, enter, leave):
        _outputs(module, inputs)
    return {name: value / len(inputs) for name, value in sums.items()}


Measure = Callable[[nn.Module, Sequence[str], Tensor], Changes]
MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"output_change": output_changes, "cosine": cosine_distances}
)


@contextmanager
def _without(module: nn.Module, name: str) -> Iterator[None]:
    block = module.get_submodule(name)
    with ExitStack() as stack:
        stack.callback(partial(_replace, module, name, block))
        _replace(module, name, nn.Identity())
        yield


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def _outputs(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([first_output(module(batch)).double() for batch in torch.split(inputs, BATCH_SIZE)])

"""Finds the layers whose outputs are added up: those of residual streams, and of parallel branches.

The sums are read from autograd's graph. What is added to itself by way of element-wise operations alone, as in an approximated
GELU, is no sum of two branches.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from spaces.pruning.groups.weights import RECURRENT
from spaces.stages.torch_artifact import noise_for
from spaces.stages.torch_outputs import tensors_of

SUMS = ("AddBackward0", "SubBackward0")


def added_layers(
    module: nn.Module, input_shape: tuple[int, ...], weights: Collection[str] = ()
) -> frozenset[str]:
    """Returns the weights of the layers whose outputs, as they are or after element-wise operations, are added to those of others.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.
        weights: Further parameters that are weights of layers, by name; convolutions and linear layers are known.
    """
    module = copy.deepcopy(module).eval().requires_grad_()
    example = noise_for(module, input_shape, 2, torch.Generator().manual_seed(0))
    with torch.enable_grad():
        outputs = tensors_of(module(example))
    layers: dict[torch.Tensor, str] = {
        part.weight: f"{name}.weight"
        for name, part in module.named_modules()
        if isinstance(part, _ConvNd | nn.Linear)
    }
    layers |= {tensor: name for name, tensor in module.named_parameters() if name in weights}
    layers |= dict(_recurrent(module))
    found: set[str] = set()
    for node in _nodes([output.grad_fn for output in outputs]):
        if node.name() in SUMS:
            sources = [_sources(before, layers) for before in _before(node)]
            if len(set(sources)) > 1:
                found.update(*sources)
    return frozenset(found)


def _recurrent(module: nn.Module) -> Iterator[tuple[torch.Tensor, str]]:
    """Yields the parameters of recurrent layers, each with the weight that stands for its module: sums in there are its own."""
    for name, part in module.named_modules():
        if isinstance(part, RECURRENT):
            projected = part.proj_size if isinstance(part, nn.LSTM) else 0
            leaf = (
                "weight_hr_l0"
                if projected
                else "weight_ih_l0"
                if isinstance(part, nn.RNNBase)
                else "weight_ih"
            )
            yield from ((tensor, f"{name}.{leaf}" if name else leaf) for tensor in part.parameters())


def _nodes(starts: list[Any]) -> list[Any]:
    """Returns the nodes of the graph that leads to some nodes."""
    seen, waiting = dict[Any, None](), [start for start in starts if start is not None]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen[node] = None
            waiting += _before(node)
    return list(seen)


def _before(node: Any) -> list[Any]:
    return [before for before, _ in node.next_functions if before is not None]


def _sources(node: Any, layers: Mapping[torch.Tensor, str]) -> frozenset[str]:
    """Returns the last layers before a node, itself included."""
    found, seen, waiting = set[str](), set[Any](), [node]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        own = [layers[weight] for weight in _weights(here) if weight in layers]
        found.update(own)
        if not own:
            waiting += _before(here)
    return frozenset(found)


def _weights(node: Any) -> list[Any]:
    """Returns the parameters that are a node or enter its operation, as they are or transposed."""
    entering = [node, *(after for before in _before(node) for after in (before, *_transposed(before)))]
    return [leaf.variable for leaf in entering if hasattr(leaf, "variable")]


def _transposed(node: Any) -> list[Any]:
    return _before(node) if node.name() in ("TBackward0", "TransposeBackward0", "PermuteBackward0") else []

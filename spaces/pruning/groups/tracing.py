"""Builds torch-pruning's dependency graph of a network, without its warnings and with readable errors."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.pruner.function import BasePruningFunc

from spaces.errors import StageError
from spaces.pruning.groups.channel_map import ChannelMap
from spaces.stages.torch_outputs import tensors_of


@dataclass(frozen=True)
class Trace:
    """The trace of a network.

    Attributes:
        graph: torch-pruning's graph.
        pass_throughs: Numbers of input and output channels of each module that is a `ChannelMap`.
        outputs: The graph's nodes that produce the network's outputs.
    """

    graph: tp.DependencyGraph
    pass_throughs: dict[nn.Module, tuple[int, int]]
    outputs: frozenset[Any]


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Traces a network. Modifies it: its parameters require gradients, and it is in eval mode.

    Args:
        module: A copy that may be changed.
        input_shape: Shape of one example.

    Raises:
        StageError: It does not run on such an example, or torch-pruning cannot trace it.
    """
    module.eval()
    for parameter in module.parameters():  # the trace follows gradients, also through frozen layers
        if parameter.is_floating_point():
            parameter.requires_grad_()
    example = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    pass_throughs, outputs = _run(module, example)
    kind = type(module).__name__
    detached = [o for o in outputs if o.grad_fn is None]
    if detached or not outputs:
        raise StageError(
            f"torch-pruning cannot trace {kind}: no gradient leads from its outputs to its layers; "
            "is there a no_grad() or detach() in its forward()?"
        )
    graph = tp.DependencyGraph()
    kept: list[Any] = []

    def keep(out: Any) -> Any:
        kept.append(out)
        return tensors_of(out)

    pruners = {type(m): _PassThroughPruner(pass_throughs) for m in pass_throughs}
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph.build_dependency(
                module,
                (example,),
                output_transform=keep,
                customized_pruners=pruners,
                verbose=False,
            )
        except Exception as error:  # torch-pruning raises anything on networks that it does not support
            raise StageError(f"torch-pruning cannot trace {kind}: {_summary(error)}") from error
    output_ids = {id(o.grad_fn) for o in tensors_of(kept[-1])}
    return Trace(
        graph,
        pass_throughs,
        frozenset(n for n in graph.module2node.values() if id(n.grad_fn) in output_ids),
    )


def _run(module: nn.Module, example: Tensor) -> tuple[dict[nn.Module, tuple[int, int]], list[Tensor]]:
    """Runs the network once; returns input and output channels of pass-throughs, and the outputs."""
    widths: dict[nn.Module, tuple[int, int]] = {}
    running: list[str] = []

    def enter(name: str) -> Any:
        return lambda *_: running.append(name)

    def leave(part: nn.Module, arguments: Any, output: Any) -> None:
        running.pop()
        if isinstance(part, ChannelMap):
            widths[part] = (arguments[0].shape[1], output.shape[1])

    with _hooks(module, enter, leave), torch.enable_grad():
        try:
            outputs = tensors_of(module(example))
        except Exception as error:  # user-defined networks raise anything
            place = f" in its module {running[-1]!r}" if running and running[-1] else ""
            raise StageError(
                f"{type(module).__name__} does not run on inputs {tuple(example.shape)}{place}: "
                f"{_summary(error)}"
            ) from error
    return widths, outputs


@contextmanager
def _hooks(module: nn.Module, enter: Any, leave: Any) -> Iterator[None]:
    handles = []
    for name, part in module.named_modules():
        handles += [part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _summary(error: Exception) -> str:
    """Returns the first two lines of the error message, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


class _PassThroughPruner(BasePruningFunc):  # type: ignore[misc] # torch-pruning is untyped
    """Pruning function of a `ChannelMap`: keeps its inputs and outputs apart in torch-pruning's graph."""

    def __init__(self, widths: dict[nn.Module, tuple[int, int]]) -> None:
        super().__init__()
        self._widths = widths

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        """Changes nothing: the graph is only read."""
        return layer

    def prune_in_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        """Changes nothing: the graph is only read."""
        return layer

    def get_out_channels(self, layer: nn.Module) -> int:
        """Returns the number of output channels."""
        return self._widths[layer][1]

    def get_in_channels(self, layer: nn.Module) -> int:
        """Returns the number of input channels."""
        return self._widths[layer][0]

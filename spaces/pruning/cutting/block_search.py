"""Finds the blocks of a network that an identity can replace: input and output have the same shape."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spaces.pruning.groups.counts import run_on_zeros
from spaces.recovery.training.determinism import fixed_threads


@dataclass
class _Calls:
    """The calls of a module in one forward pass. Tensors are kept alive, so that ids stay unique."""

    n_calls: int = 0
    has_one_argument: bool = True
    input: Any = None
    output: Any = None

    @property
    def is_removable(self) -> bool:
        """Whether an identity could replace the module."""
        x, y = self.input, self.output
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            return False
        return self.n_calls == 1 and self.has_one_argument and x.shape == y.shape and x.dtype == y.dtype


def removable_blocks(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Returns the names of the blocks that can be removed, in execution order.

    A block is a module that contains layers, at least one of them with weights, and that takes one tensor and
    returns one of the same shape and type. Blocks are not nested: the outermost one counts, unless it is a
    stack of blocks, that is an `nn.Sequential` that contains blocks, or a module that passes the output of
    one inner block to another.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: The network does not run on such an example.
    """
    module = copy.deepcopy(module).eval()
    calls = _record_calls(module, input_shape)
    order = list(calls)
    return tuple(sorted(_blocks(module, "", calls), key=order.index))


def _record_calls(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, _Calls]:
    """Returns the calls of each module that runs, by name, in execution order."""
    calls: dict[str, _Calls] = {}

    def enter(name: str, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        own = calls.setdefault(name, _Calls())
        own.n_calls += 1
        own.has_one_argument = len(arguments) == 1 and not named
        own.input = arguments[0] if arguments else None

    def leave(name: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        calls[name].output = output

    with ExitStack() as stack, torch.no_grad(), fixed_threads(1):
        for name, part in module.named_modules():
            before = part.register_forward_pre_hook(partial(enter, name), with_kwargs=True)
            after = part.register_forward_hook(partial(leave, name))
            stack.callback(before.remove)
            stack.callback(after.remove)
        run_on_zeros(module, input_shape)
    return calls


def _blocks(part: nn.Module, name: str, calls: dict[str, _Calls]) -> list[str]:
    prefix = f"{name}." if name else ""
    inner = [b for child, sub in part.named_children() for b in _blocks(sub, f"{prefix}{child}", calls)]
    if not name or name not in calls or not calls[name].is_removable or not _has_layers(part):
        return inner
    is_stack = bool(inner) if isinstance(part, nn.Sequential) else any(_is_chained(inner, calls))
    return inner if is_stack else [name]


def _has_layers(part: nn.Module) -> bool:
    inside = [sub for sub in part.modules() if sub is not part]
    return any(p.ndim > 1 for sub in inside for p in sub.parameters(recurse=False))


def _is_chained(names: list[str], calls: dict[str, _Calls]) -> Iterator[bool]:
    """Yields, for each block, whether its output is the input of another one."""
    for first in names:
        yield any(calls[first].output is calls[second].input for second in names if second != first)

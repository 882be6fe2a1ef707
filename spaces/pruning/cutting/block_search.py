"""Finds the blocks of a network that could be left out: what comes out of them looks like what goes in."""

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
class _Runs:
    """What was seen of a module while the network ran once. The tensors are kept, so that no two have one identity."""

    n_calls: int = 0
    plain: bool = True
    taken: Any = None
    given: Any = None

    @property
    def fits(self) -> bool:
        """Whether the module could be left out."""
        x, y = self.taken, self.given
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            return False
        return self.n_calls == 1 and self.plain and x.shape == y.shape and x.dtype == y.dtype


def removable_blocks(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Returns the names of the blocks that could be left out, in the order in which they run.

    A block is a module with layers inside, at least one of them with weights, that takes one tensor and returns another of its
    shape and type. Blocks do not lie within each other: the outermost one is meant, unless it is an `nn.Sequential` with
    blocks in it, or hands a tensor from one block in it to another (a stack of blocks).

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: The network does not run on such an example.
    """
    module = copy.deepcopy(module).eval()
    seen = _observe(module, input_shape)
    order = list(seen)
    return tuple(sorted(_blocks(module, "", seen), key=order.index))


def _observe(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, _Runs]:
    seen: dict[str, _Runs] = {}

    def enter(name: str, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        runs = seen.setdefault(name, _Runs())
        runs.n_calls += 1
        runs.plain = len(arguments) == 1 and not named
        runs.taken = arguments[0] if arguments else None

    def leave(name: str, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen[name].given = output

    with ExitStack() as stack, torch.no_grad(), fixed_threads(1):
        for name, part in module.named_modules():
            before = part.register_forward_pre_hook(partial(enter, name), with_kwargs=True)
            after = part.register_forward_hook(partial(leave, name))
            stack.callback(before.remove)
            stack.callback(after.remove)
        run_on_zeros(module, input_shape)
    return seen


def _blocks(part: nn.Module, name: str, seen: dict[str, _Runs]) -> list[str]:
    prefix = f"{name}." if name else ""
    inner = [b for child, sub in part.named_children() for b in _blocks(sub, f"{prefix}{child}", seen)]
    if not name or name not in seen or not seen[name].fits or not _has_layers(part):
        return inner
    is_stack = bool(inner) if isinstance(part, nn.Sequential) else any(_handed_on(inner, seen))
    return inner if is_stack else [name]


def _has_layers(part: nn.Module) -> bool:
    inside = [sub for sub in part.modules() if sub is not part]
    return any(p.ndim > 1 for sub in inside for p in sub.parameters(recurse=False))


def _handed_on(names: list[str], seen: dict[str, _Runs]) -> Iterator[bool]:
    for first in names:
        yield any(seen[first].given is seen[second].taken for second in names if second != first)

"""Features of a network: which modules' outputs student and teacher are compared at, and how they are got hold of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


class Hooks:
    """Remembers, while it is open, what modules yielded last.

    Args:
        module: The network.
        names: Names of the modules to listen to, as in `named_modules`.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.features: dict[str, Tensor] = {}
        self._handles = [
            module.get_submodule(name).register_forward_hook(self._remembering(name)) for name in names
        ]

    def close(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _remembering(self, name: str) -> Any:
        def remember(module: nn.Module, arguments: Any, output: Any) -> None:
            del module, arguments
            self.features.pop(name, None)  # so that the order is that of the last time
            if isinstance(output, Tensor):
                self.features[name] = output

        return remember


@contextmanager
def hooked(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yields a dict that holds, after a forward pass, what the named modules yielded, in the order of finishing."""
    hooks = Hooks(module, names)
    try:
        yield hooks.features
    finally:
        hooks.close()


def matching_modules(student: nn.Module, teacher: nn.Module, inputs: Tensor) -> dict[str, tuple[int, int]]:
    """Returns where features can be compared: for every resolution, the last module that yields it in both networks.

    So a ResNet is tapped behind every group of blocks. Modules match by name, and by the places of their outputs; the last
    with equally many channels in both is taken, if there is any.

    Args:
        student: The smaller network, in eval mode.
        teacher: The network it comes from, in eval mode.
        inputs: A few examples `(b, *input.shape)`.

    Returns:
        By name, in the order of running: channels of the student and of the teacher.
    """
    ours, theirs = _shapes(student, inputs), _shapes(teacher, inputs)
    found: dict[tuple[int, ...], str] = {}
    for name, (_, channels, *places) in ours.items():
        if places != list(theirs.get(name, ())[2:]) or prod(places) == 1:
            continue
        last = found.get(tuple(places))
        if last is None or channels == theirs[name][1] or ours[last][1] != theirs[last][1]:
            found[tuple(places)] = name
    return {name: (ours[name][1], theirs[name][1]) for name in ours if name in found.values()}


def _shapes(module: nn.Module, inputs: Tensor) -> dict[str, tuple[int, ...]]:
    names = [name for name, _ in module.named_modules() if name]
    with hooked(module, names) as features, torch.no_grad():
        module(inputs)
        return {name: tuple(value.shape) for name, value in features.items() if value.ndim > 2}

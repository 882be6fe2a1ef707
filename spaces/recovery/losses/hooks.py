"""Features of a network: hooks to record them, and the modules to compare student and teacher at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


class Hooks:
    """Records the last outputs of modules until it is closed.

    Args:
        module: The network.
        names: Names of the modules to record, as in `named_modules`.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.features: dict[str, Tensor] = {}
        self._handles = [
            module.get_submodule(name).register_forward_hook(self._recorder(name)) for name in names
        ]

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()

    def _recorder(self, name: str) -> Any:
        def record(module: nn.Module, arguments: Any, output: Any) -> None:
            del module, arguments
            self.features.pop(name, None)  # so that the order is that of the last forward pass
            if isinstance(output, Tensor):
                self.features[name] = output

        return record


@contextmanager
def hooked(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yields a dict of the last outputs of the named modules, in the order of their completion."""
    hooks = Hooks(module, names)
    try:
        yield hooks.features
    finally:
        hooks.close()


def matching_modules(student: nn.Module, teacher: nn.Module, inputs: Tensor) -> dict[str, tuple[int, int]]:
    """Returns the modules whose features can be compared: the last one of every resolution.

    In a ResNet these are the last blocks of each group of blocks. Modules match if their names and the
    resolutions of their outputs are equal; modules with equally many channels in both networks are preferred.

    Args:
        student: The smaller network, in eval mode.
        teacher: The network before the cut, in eval mode.
        inputs: A few examples `(b, *input.shape)`.

    Returns:
        By name, in execution order: numbers of channels of the student and of the teacher.
    """
    ours, theirs = _shapes(student, inputs), _shapes(teacher, inputs)
    chosen: dict[tuple[int, ...], str] = {}
    for name, (_, channels, *resolution) in ours.items():
        if resolution != list(theirs.get(name, ())[2:]) or prod(resolution) == 1:
            continue
        last = chosen.get(tuple(resolution))
        if last is None or channels == theirs[name][1] or ours[last][1] != theirs[last][1]:
            chosen[tuple(resolution)] = name
    return {name: (ours[name][1], theirs[name][1]) for name in ours if name in chosen.values()}


def _shapes(module: nn.Module, inputs: Tensor) -> dict[str, tuple[int, ...]]:
    names = [name for name, _ in module.named_modules() if name]
    with hooked(module, names) as features, torch.no_grad():
        module(inputs)
        return {name: tuple(value.shape) for name, value in features.items() if value.ndim > 2}

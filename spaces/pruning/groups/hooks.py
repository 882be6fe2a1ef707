"""Hooks on the inputs and outputs of layers, which are removed at the end of a block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

Hook = Callable[[str, Tensor], None]
"""Called with a layer's name and its input or output."""


@contextmanager
def hooked(
    layers: Mapping[str, nn.Module], before: Hook | None = None, after: Hook | None = None
) -> Iterator[None]:
    """Calls `before` with each layer's first input, `after` with its output, until the block ends."""

    def enter(name: str, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        if before is not None:
            before(name, arguments[0])

    def leave(name: str, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        if after is not None:
            after(name, output)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(partial(enter, name)).remove)
            stack.callback(layer.register_forward_hook(partial(leave, name)).remove)
        yield

"""Looks at what goes into and comes out of layers while a network runs, and leaves nothing behind."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

Seen = Callable[[str, Tensor], None]
"""Gets a layer's name and its input or output."""


@contextmanager
def hooked(
    layers: Mapping[str, nn.Module], before: Seen | None = None, after: Seen | None = None
) -> Iterator[None]:
    """Calls `before` with each layer's input before it runs, `after` with its output; ends with the block."""

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

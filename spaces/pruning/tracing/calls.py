"""One call of an operation of torch, with its arguments by name."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

ARGUMENTS = ("self", "input", "tensors")


class Call:
    """An operation, its arguments and its result.

    Args:
        func: The operation.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: Its result.
    """

    def __init__(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        self.func, self.args, self.kwargs, self.out = func, args, kwargs, out
        self.name: str = func._schema.name.removeprefix("aten::").rstrip("_")

    @cached_property
    def values(self) -> dict[str, Any]:
        """The arguments by name, with defaults."""
        parameters = self.func._schema.arguments
        values = {p.name: p.default_value for p in parameters if p.has_default_value()}
        values |= {p.name: value for p, value in zip(parameters, self.args, strict=False)}
        return values | self.kwargs

    @cached_property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, in order, also those in lists."""
        return list(_tensors([*self.args, *self.kwargs.values()]))

    @cached_property
    def outputs(self) -> list[Tensor]:
        """All tensors in the result."""
        return list(_tensors([self.out]))

    def axes(self, ndim: int) -> list[int]:
        """Returns the axes that a reduction sums over, not negative; all if it names none."""
        dim = self.values.get("dim")
        dims = [dim] if isinstance(dim, int) else list(dim or range(ndim))
        return sorted({d % ndim for d in dims})

    def on(self, labels: Tensor) -> Any:
        """Runs the operation on labels in place of its first tensor."""
        return self.func(labels, *self.args[1:], **self.kwargs)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)

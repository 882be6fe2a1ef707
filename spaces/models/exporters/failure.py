"""Why a module has no ONNX form, in one sentence that names the layer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Arguments = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]  # positional ones, and by name

_LONGEST = 200
_DATA_DEPENDENT = ("GuardOnDataDependentSymNode", "DataDependentOutputException")
_OPERATOR = re.compile(r"\b(?:aten|torchvision|prim|quantized)(?:::|\.)(\w+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class UnfitError(Exception):
    """A way of exporting does not suit a module; the message says why, as the rest of a sentence."""


@dataclass(frozen=True)
class Cause:
    """Why a module could not be exported.

    Attributes:
        sentence: The reason.
        final: Whether no other way of exporting can help.
    """

    sentence: str
    final: bool = False


def call(module: torch.nn.Module, arguments: Arguments) -> Any:
    """Returns the module's outputs."""
    return module(*arguments[0], **arguments[1])


def cause_of(module: torch.nn.Module, example: Arguments, error: Exception) -> Cause:
    """Finds out why exporting a module raised an error.

    Args:
        module: The module, in eval mode.
        example: Arguments that it was exported with.
        error: What the exporter raised.
    """
    try:
        with _running(module) as running, torch.no_grad():
            call(module, example)
    except Exception as own:
        return Cause(
            f"{_place(running)}it does not run on inputs of shape {_shapes(example)}: {_first_line(own)}",
            True,
        )
    chain = list(_chain(error))
    if any(type(e).__name__ in _DATA_DEPENDENT or any(n in str(e) for n in _DATA_DEPENDENT) for e in chain):
        where = _place(_layers_of_data(module, example))
        return Cause(
            f"{where}what it computes depends on values of its input (an `if` or a size), and a graph is fixed",
            True,
        )
    for found in chain:
        for operator in _OPERATOR.findall(_unsupported(found)):
            where = _place(_layers_of_operator(module, example, operator))
            return Cause(f"{where}the operator {operator} has no ONNX form in torch's exporter")
    return Cause(_first_line(chain[-1]))


def _shapes(example: Arguments) -> str:
    return ", ".join(str(tuple(t.shape)) for t in (*example[0], *example[1].values()))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes, the outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _unsupported(error: BaseException) -> str:
    """Returns the part of a message that names an operator which the exporter lacks; empty if it does not."""
    text = str(error)
    known = re.search(
        r"(No ONNX function found|No decompositions registered|Exporting the operator|unrecognized namespace)[^\n]*",
        text,
    )
    return known.group() if known else ""


def _first_line(error: BaseException) -> str:
    """Returns the first sentence of a message, without colours, addresses of memory and places in files."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    line = re.sub(r"<class '([^']*)'>", r"\1", lines[0] if lines else type(error).__name__)
    line = re.sub(r"\s*\(?https?://\S+|0x[0-9a-fA-F]+|File \"[^\"]*\", line \d+", "", line)
    return line[:_LONGEST].rstrip(" .:")


@contextmanager
def _running(module: torch.nn.Module) -> Iterator[list[tuple[str, str]]]:
    """Yields a list of the layers that are running, the innermost last; after an error, those that were running."""
    names = {id(child): name for name, child in module.named_modules()}
    running: list[tuple[str, str]] = []

    def enter(child: torch.nn.Module, _: Any) -> None:
        running.append((names.get(id(child), ""), type(child).__name__))

    def leave(child: torch.nn.Module, _: Any, __: Any) -> None:
        running.pop()

    handles = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave),
    ]
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _place(running: list[tuple[str, str]]) -> str:
    """Returns the beginning of a sentence: the innermost of the running layers."""
    named = [(name, kind) for name, kind in running if name]
    return f"layer {named[-1][0]} ({named[-1][1]}): " if named else ""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which layers are running when an operator is called first."""

    def __init__(self, operators: tuple[str, ...], running: list[tuple[str, str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators, self.running = operators, running
        self.found: list[tuple[str, str]] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.found is None and func.overloadpacket.__name__ in self.operators:
            self.found = list(self.running)
        return func(*args, **(kwargs or {}))


def _layers_of_operator(
    module: torch.nn.Module, example: Arguments, *operators: str
) -> list[tuple[str, str]]:
    """Returns the layers that are running when one of the operators is called first; empty if none is called."""
    with _running(module) as running, _Watch(operators, running) as watch, torch.no_grad():
        call(module, example)
    return watch.found or []


def _layers_of_data(module: torch.nn.Module, example: Arguments) -> list[tuple[str, str]]:
    """Returns the layers that are running when a number is first taken out of a tensor."""
    return _layers_of_operator(
        module, example, "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique2"
    )

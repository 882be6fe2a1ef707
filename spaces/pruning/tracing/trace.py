"""Traces which channels depend on each other, in one run of a network whose tensors carry labels."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spaces.errors import StageError
from spaces.pruning.tracing.calls import Call
from spaces.pruning.tracing.channel_map import ChannelMap
from spaces.pruning.tracing.decomposed import decomposed
from spaces.pruning.tracing.nodes import Component, End, Nodes
from spaces.pruning.tracing.planes import along, varying
from spaces.pruning.tracing.products import Product
from spaces.pruning.tracing.rules import Rules
from spaces.stages.torch_artifact import noise_for
from spaces.stages.torch_outputs import tensors_of

OUTPUT = "the network's outputs consist of its channels"
N_EXAMPLES = 2


@dataclass(frozen=True)
class Trace:
    """What one run of a network shows.

    Attributes:
        components: The sets of channels that can only be cut together.
        roles: Of each axis of a parameter that a product multiplies with: whether its indices are outputs or inputs.
        products: Products whose cost depends on more than the size of a weight, by name.
        maps: Numbers of input and output channels of each `ChannelMap`, by name.
    """

    components: tuple[Component, ...]
    roles: dict[End, Literal["out", "in"]]
    products: dict[str, Product]
    maps: dict[str, tuple[int, int]]


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Traces a network, which must be in eval mode.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: It does not run on such an example.
    """
    generator = torch.Generator().manual_seed(0)
    return _Tracer(module)(noise_for(module, input_shape, N_EXAMPLES, generator))


class _Tracer:
    def __init__(self, module: nn.Module) -> None:
        self._module, self._running = module, [""]
        self._kinds = {name: type(part).__name__ for name, part in module.named_modules()}
        self._nodes, self._maps = Nodes(), dict[str, tuple[int, int]]()
        self._rules = Rules(self._nodes, self._place)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                shape = tensor.shape
                ends = [self._nodes.labels(End("parameter", name, axis), n) for axis, n in enumerate(shape)]
                planes = varying([along(labels, axis, shape) for axis, labels in enumerate(ends)])
                self._rules.label(tensor, planes, pure=True)
        self._couple_units()

    def __call__(self, example: Tensor) -> Trace:
        self._rules.label(example, ())
        with self._hooks(), decomposed(self._module), _Labelling(self._rules):
            outputs = self._run(example)
        for tensor in outputs:
            for plane in self._rules.planes(tensor) or ():
                self._nodes.freeze(plane.core, OUTPUT)
        products = self._rules.products
        return Trace(tuple(self._nodes.components()), products.roles, products.products, self._maps)

    def _couple_units(self) -> None:
        """Unites the units of a recurrent module's layers and directions: it has one `hidden_size` and one `proj_size`."""
        for name, part in self._module.named_modules():
            for kind in ("weight_hh", "weight_hr") if isinstance(part, nn.RNNBase) else ():
                leaves = [leaf for leaf in part._parameters if leaf.startswith(kind)]
                ends = [End("parameter", f"{name}.{leaf}" if name else leaf, 1) for leaf in leaves]
                lines = [
                    self._nodes.labels(end, part.get_parameter(leaf).shape[1])
                    for end, leaf in zip(ends, leaves, strict=True)
                ]
                for line in lines[1:]:
                    self._nodes.unite(lines[0], line)

    def _run(self, example: Tensor) -> list[Tensor]:
        try:
            return tensors_of(self._module(example))
        except Exception as error:  # user-defined networks raise anything
            place = f" in its module {self._running[-1]!r}" if self._running[-1] else ""
            raise StageError(
                f"{type(self._module).__name__} does not run on inputs {tuple(example.shape)}{place}: {_summary(error)}"
            ) from error

    def _place(self) -> str:
        name = self._running[-1]
        return f"{name} ({self._kinds[name]})" if name else self._kinds[""]

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, part in self._module.named_modules():
                stack.callback(part.register_forward_pre_hook(_ignoring(partial(self._enter, name))).remove)
                stack.callback(part.register_forward_hook(_ignoring(partial(self._leave, name))).remove)
            yield

    def _enter(self, name: str, part: nn.Module, arguments: tuple[Any, ...], output: Any = None) -> None:
        self._running.append(name)

    def _leave(self, name: str, part: nn.Module, arguments: tuple[Any, ...], output: Any = None) -> None:
        self._running.pop()
        if isinstance(part, ChannelMap):
            self._map(name, part, arguments[0], output)

    def _map(self, name: str, part: ChannelMap, x: Tensor, y: Tensor) -> None:
        """Labels the output of a `ChannelMap` as it declares."""
        widths = self._maps[name] = (x.shape[1], y.shape[1])
        inputs, outputs = (self._nodes.labels(End("map", name, side), n) for side, n in enumerate(widths))
        for plane in self._rules.planes(x) or ():
            self._nodes.unite(along(inputs, 1, x.shape), plane.labels)
        self._nodes.unite(inputs, outputs[torch.tensor(list(part.channel_map(widths[0])), dtype=torch.long)])
        self._rules.label(y, varying([along(outputs, 1, y.shape)]))


class _Labelling(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's is untyped
    """Labels the result of every operation."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's is untyped
        self._rules = rules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "aten":
            self._rules(Call(func, args, kwargs or {}, out))
        return out


def _ignoring(function: Callable[..., None]) -> Any:
    """Returns a hook whose result changes nothing."""

    def hook(*arguments: Any) -> None:
        function(*arguments)

    return cast(Any, hook)


def _summary(error: Exception) -> str:
    """Returns the first two lines of the error message, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__

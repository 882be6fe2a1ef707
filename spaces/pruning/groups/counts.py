"""Counts the multiply-accumulates, parameters and bytes of a network."""

import copy
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from spaces.errors import StageError
from spaces.pruning.tracing.calls import Call
from spaces.pruning.tracing.decomposed import decomposed
from spaces.recovery.training.determinism import fixed_threads

OF_ACTIVATIONS = "(products of activations)"


@dataclass(frozen=True)
class Counts:
    """The cost of a layer or a network.

    Attributes:
        macs: Multiply-accumulates for one example, of convolutions and matrix products, those in attention and recurrent layers
            too.
        parameters: Number of learned values; a BatchNorm's statistics do not count.
        weight_bytes: Bytes of the parameters.
    """

    macs: int = 0
    parameters: int = 0
    weight_bytes: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.macs + other.macs,
            self.parameters + other.parameters,
            self.weight_bytes + other.weight_bytes,
        )


def total(counts: Iterable[Counts]) -> Counts:
    """Returns the sum."""
    return sum(counts, Counts())


def layer_counts(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Counts]:
    """Returns the cost of each module with parameters of its own, by name of its first parameter.

    Products of two activations, or of one and a product of parameters, are listed under `OF_ACTIVATIONS`, if there are any.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: The network does not run on such an example.
    """
    macs = product_macs(module, input_shape)
    first_names: dict[int, str] = {}
    counts = {}
    for name, part in module.named_modules():
        own = {k: p for k, p in part._parameters.items() if p is not None}
        if not own:
            continue
        prefix = f"{name}." if name else ""
        new = {k: p for k, p in own.items() if first_names.setdefault(id(p), prefix + k) == prefix + k}
        n_bytes = sum(p.numel() * p.element_size() for p in own.values())
        own_macs = sum(macs.get(prefix + k, 0) for k in new)
        counts[prefix + next(iter(own))] = Counts(own_macs, sum(p.numel() for p in own.values()), n_bytes)
    if macs[OF_ACTIVATIONS]:
        counts[OF_ACTIVATIONS] = Counts(macs[OF_ACTIVATIONS])
    return counts


def weight_uses(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Returns how often one example uses each element of a weight: once per output position or token.

    A layer's multiply-accumulates are the size of its weight times that number.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Returns:
        By name of the parameter, for those that are the weight of a convolution or a matrix product.

    Raises:
        StageError: The network does not run on such an example.
    """
    macs = product_macs(module, input_shape)
    return {name: macs[name] // p.numel() for name, p in module.named_parameters() if macs.get(name)}


def product_macs(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Returns the multiply-accumulates for one example by name of the weight, and those of activations as `OF_ACTIVATIONS`.

    Products of parameters alone are left out: they are computed once, when a network is exported.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: The network does not run on such an example.
    """
    module = copy.deepcopy(module).eval()
    counting = _Counting(module)
    with decomposed(module), fixed_threads(1):
        run_on_zeros(module, input_shape, counting)
    return counting.macs


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's is untyped
    """Counts the products of all operations in the block, by the parameter that the weight is made of."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's is untyped
        self.macs = {OF_ACTIVATIONS: 0}
        self._owners: MutableMapping[Tensor, str | None] = (
            WeakTensorKeyDictionary()
        )  # None: depends on the input
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            self._owners[tensor] = name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call(func, args, kwargs or {}, func(*args, **(kwargs or {})))
        known = sorted((t for t in call.tensors if t in self._owners), key=Tensor.numel)
        if call.name in _OPERANDS:
            self._count(call)
        owners = [self._owners[t] for t in known]
        made = OF_ACTIVATIONS in owners or (
            call.name in _OPERANDS and len(known) > 1
        )  # no parameter has its size
        for out in call.outputs if known else ():
            self._owners[out] = None if None in owners else OF_ACTIVATIONS if made else owners[-1]
        return call.out

    def add_input(self, x: Tensor) -> Tensor:
        """Marks a tensor as the network's input."""
        self._owners[x] = None
        return x

    def _count(self, call: Call) -> None:
        first = _OPERANDS[call.name]
        operands = call.tensors[first : first + 2]
        owners = [
            self._owners.get(t) for t in operands
        ]  # a constant, e.g. a recurrent layer's first state, has none
        if None in owners:
            named = next((name for name in owners if name), OF_ACTIVATIONS)
            self.macs[named] = self.macs.get(named, 0) + _macs(call, operands)


_OPERANDS = {"convolution": 0, "mm": 0, "bmm": 0, "mv": 0, "dot": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}
"""Position of the first operand of each product among the tensors that it takes."""


def _macs(call: Call, operands: list[Tensor]) -> int:
    a, b = operands
    if call.name != "convolution":
        return a.numel() * (b.shape[-1] if b.ndim > 1 else 1)
    if call.values["transposed"]:  # uses its weight once for every input position
        return a.numel() * prod(b.shape[1:])
    return call.outputs[0].numel() * prod(b.shape[1:])


def run_on_zeros(
    module: nn.Module, input_shape: tuple[int, ...], counting: "_Counting | None" = None
) -> None:
    """Runs a network on one example of zeros, so that its hooks are called.

    Raises:
        StageError: The network does not run on such an example.
    """
    x = torch.zeros(1, *input_shape)
    try:
        if counting is None:
            module(x)
        else:
            counting.add_input(x)
            with counting:
                module(x)
    except Exception as error:  # user-defined networks raise anything
        raise StageError(
            f"{type(module).__name__} does not run on inputs {(1, *input_shape)}: {error}"
        ) from error

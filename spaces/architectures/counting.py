"""Exact costs of a network, from the tensors' shapes alone: on torch's meta device nothing is allocated or computed."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

BYTES = 4  # of a float32 value


@dataclass(frozen=True)
class Counts:
    """Costs of one example's forward pass.

    Attributes:
        macs: Multiply-accumulates of convolutions and matrix products.
        parameters: Trained values; a value that several layers share counts once.
        peak_activation_bytes: Most bytes of float32 tensors that are live at once, inputs included, weights excluded. An
            elementwise operator, BatchNorm included, writes over an input that nothing reads afterwards.
    """

    macs: int
    parameters: int
    peak_activation_bytes: int


NAMES = tuple(Counts.__dataclass_fields__)


def counts_of(network: nn.Module, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Counts:
    """Returns the costs of a network for one example.

    Args:
        network: The network; with weights on the meta device nothing is computed.
        input_shape: Shape of an example, without the batch axis.
        dtype: Element type of the input.
    """
    weights = [*network.parameters(), *network.buffers()]
    device = weights[0].device if weights else torch.device("meta")
    example = torch.zeros(1, *input_shape, device=device, dtype=dtype)
    trace = _Trace(_storages(weights))
    trace.saw(example)
    was_training = network.training
    with torch.no_grad(), _quick_norms(network), trace:
        outputs = network.eval()(example)
    network.train(was_training)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Counts(trace.macs, parameters, trace.peak_bytes(outputs))


@contextmanager
def _quick_norms(network: nn.Module) -> Iterator[None]:
    """Lets BatchNorms be one elementwise operator, as they are to an inference runtime; torch has dozens on the meta device."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = torch.neg  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _storages(values: Iterable[Any]) -> set[int]:
    return {_storage(value) for value in tree_leaves(list(values)) if isinstance(value, Tensor)}


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@dataclass(frozen=True)
class _Form:
    """What a meta tensor is."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, value: Any) -> Any:
        """Returns the form of a tensor, and anything else as it is; lists as tuples, so that they can be looked up."""
        if isinstance(value, Tensor):
            return cls(tuple(value.shape), value.stride(), value.dtype)
        return tuple(map(cls.of, value)) if isinstance(value, (list, tuple)) else value

    def tensor(self) -> Tensor:
        """Returns a new tensor."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


def _result(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns what an operator returns; on the meta device, where torch derives every shape anew, from the last time."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    # without a tensor among the arguments, e.g. of `arange`, the device is not known from them
    if not tensors or any(t.device.type != "meta" for t in tensors) or not _only_computes(func):
        return func(*args, **kwargs)
    form = _made(func, _Form.of(args), _Form.of(tuple(sorted(kwargs.items()))))
    if form is None:
        return func(*args, **kwargs)
    return form.tensor() if isinstance(form, _Form) else tuple(each.tensor() for each in form)


@lru_cache(maxsize=4096)
def _made(func: Any, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> Any:
    """Returns the forms of an operator's results; None if one is a view of an argument, as `_unsafe_view`'s is."""
    values, named = (
        tree_map(lambda v: v.tensor() if isinstance(v, _Form) else v, part) for part in (args, dict(kwargs))
    )
    made = func(*values, **named)
    return None if _storages([made]) & _storages([values, named]) else _Form.of(made)


@lru_cache(maxsize=1024)
def _only_computes(func: Any) -> bool:
    """Whether an operator returns new tensors, no views of its arguments, and nothing else."""
    returns = func._schema.returns
    plain = all(r.alias_info is None and str(r.type) == "Tensor" for r in returns)
    return bool(returns) and plain and not func._schema.is_mutable


@dataclass
class _Step:
    """One operator: the storages that it reads and those that it makes."""

    reads: set[int]
    makes: set[int]
    in_place: bool


@dataclass
class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operators of a forward pass."""

    weights: set[int]
    macs: int = 0
    steps: list[_Step] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)  # so that no address is used twice

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def saw(self, *values: Any) -> set[int]:
        """Notes tensors that are no weights; returns their storages."""
        found = set()
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor) and _storage(tensor) not in self.weights:
                self.kept.append(tensor)
                # an expanded tensor's storage is smaller than its shape: views count once, by what is stored
                self.sizes.setdefault(_storage(tensor), tensor.untyped_storage().nbytes())
                found.add(_storage(tensor))
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = _result(func, args, kwargs)
        packet = func.overloadpacket
        if packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=made) // 2
        reads = self.saw(args, kwargs)
        makes = self.saw(made) - reads
        if makes:
            self.steps.append(_Step(reads, makes, torch.Tag.pointwise in func.tags))
        elif reads:
            self.steps.append(_Step(reads, set(), True))
        return made

    def peak_bytes(self, outputs: Any) -> int:
        """Returns the most bytes that are live at once."""
        last = {storage: at for at, step in enumerate(self.steps) for storage in step.reads}
        last |= dict.fromkeys(_storages([outputs]), len(self.steps))
        live = set(self.steps[0].reads) if self.steps else set()
        return max((size for size in self._sizes(live, last)), default=0)

    def _sizes(self, live: set[int], last: dict[int, int]) -> Iterator[int]:
        """Yields the live bytes at each operator."""
        for at, step in enumerate(self.steps):
            size = sum(self.sizes[storage] for storage in live | step.makes)
            if step.in_place and step.makes:
                size -= self._overwritten(step, last, at)
            yield size
            live |= step.makes
            live -= {storage for storage in live if last.get(storage, -1) <= at}

    def _overwritten(self, step: _Step, last: dict[int, int], at: int) -> int:
        """Returns the bytes of an operator's output that take the place of an input."""
        size = max(self.sizes[storage] for storage in step.makes)
        dead = (self.sizes[storage] for storage in step.reads if last.get(storage, math.inf) <= at)
        return size if any(each == size for each in dead) else 0

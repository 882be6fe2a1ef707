"""Activations that are stored for the backward pass in a few bits (S2A: structured storage of activations in fine-tuning).

Values are rounded to codes between the least and the greatest of each group of 64: `x ~ offset + step * code`, with `offset` and `step` in float16.
`N` values so take `N * bits / 8 + N / 64 * 4` bytes instead of `4 * N`. The forward pass computes with the exact values; only gradients
that need a stored value see the rounded one.

Exact stay weights, also those that a parametrization computes; buffers; the network's inputs, which the step holds anyway; whole numbers, such as
indices of a pooling; and statistics of normalisations, a value per channel or position.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils.parametrize import ParametrizationList

GROUP = 64  # values that share an offset and a step
EXACT = 32  # bits of activations that are stored as they are
_LEAST_STEP = 2.0**-24  # the least positive float16
_GREATEST = 65504.0  # the greatest float16


@dataclass(frozen=True)
class Codes:
    """Rounded values.

    Attributes:
        packed: `(n_groups, GROUP * bits / 8)` uint8; the first code of a byte is in its lowest bits.
        offsets: `(n_groups, 1)` float16, value of code 0.
        steps: `(n_groups, 1)` float16, at least 0.
        bits: 2, 4 or 8.
    """

    packed: Tensor
    offsets: Tensor
    steps: Tensor
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes of codes, offsets and steps."""
        return self.packed.nbytes + self.offsets.nbytes + self.steps.nbytes

    def values(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Returns the rounded values of a tensor of a shape and dtype."""
        mask = 2**self.bits - 1
        parts = [(self.packed >> shift) & mask for shift in range(0, 8, self.bits)]
        codes = torch.stack(parts, 2).flatten(1)  # (n_groups, GROUP)
        values = self.offsets.to(dtype) + self.steps.to(dtype) * codes.to(dtype)
        return values.flatten()[: shape.numel()].view(shape)


def encode(values: Tensor, bits: int) -> Codes:
    """Rounds values to codes of `bits` (2, 4 or 8) bits; the last group is filled up with the last value.

    Args:
        values: Any shape, floating, not empty.
        bits: Bits of a code.
    """
    flat = values.detach().flatten()
    filled = torch.cat([flat, flat[-1:].expand(-len(flat) % GROUP)]).view(-1, GROUP).float()
    levels = 2**bits - 1
    offsets = filled.amin(1, keepdim=True).clamp(-_GREATEST, _GREATEST).half()
    span = (filled.amax(1, keepdim=True) - offsets.float()).clamp(min=0)
    steps = (span / levels).clamp(max=_GREATEST).half()
    codes = ((filled - offsets.float()) / steps.float().clamp(min=_LEAST_STEP)).round().clamp(0, levels)
    per_byte = codes.to(torch.uint8).unflatten(1, (-1, 8 // bits))  # (n_groups, bytes, codes of a byte)
    packed = per_byte[..., 0].clone()
    for at in range(1, 8 // bits):
        packed |= per_byte[..., at] << (at * bits)
    return Codes(packed, offsets, steps, bits)


@dataclass(frozen=True)
class StoredBytes:
    """What a step stores of a network's forward pass for the backward pass, apart from weights and inputs.

    Attributes:
        exact: Bytes without rounding; tensors that share memory count once.
        stored: Bytes with it.
    """

    exact: int
    stored: int


class StoredActivations:
    """Stores the activations of a network in a training, and counts those of the first step.

    Args:
        bits: 2, 4 or 8; 32 stores them as they are.
    """

    def __init__(self, bits: int = EXACT) -> None:
        self._bits = bits
        self.first: StoredBytes | None = None
        """Of the first step; None before it."""

    @contextmanager
    def of(self, network: nn.Module, inputs: Tensor) -> Iterator[None]:
        """Stores what the network's forward pass within the block saves.

        Args:
            network: The network.
            inputs: Its inputs in this pass.
        """
        if self._bits == EXACT and self.first is not None:
            yield
            return
        store = _Store(self._bits)
        with store.keeping(network, inputs), saved_tensors_hooks(store.pack, store.unpack):
            yield
        self.first = self.first or StoredBytes(store.exact, store.stored)
        store.forget()


@dataclass
class _Store:
    """The hooks of one forward pass."""

    bits: int
    exact: int = 0
    stored: int = 0
    _kept: list[Tensor] = field(default_factory=list)  # alive, so that no other tensor gets their memory
    _addresses: set[int] = field(default_factory=set)  # of kept tensors' memory
    _codes: dict[tuple[Any, ...], Codes] = field(default_factory=dict)
    _exact: dict[int, StorageWeakRef] = field(default_factory=dict)  # memory that `exact` counts
    _whole: set[int] = field(default_factory=set)  # memory that `stored` counts as it is

    @contextmanager
    def keeping(self, network: nn.Module, inputs: Tensor) -> Iterator[None]:
        """Keeps weights, buffers and inputs exact, and weights that are computed within the block."""
        for tensor in (*network.parameters(), *network.buffers(), inputs):
            self._keep(tensor)
        with ExitStack() as stack:
            for part in network.modules():
                if isinstance(part, ParametrizationList):
                    stack.enter_context(_hooked(part, self._keep))
            yield

    def pack(self, tensor: Tensor) -> Tensor | tuple[Codes, torch.Size, torch.dtype]:
        """Returns what is stored of a tensor that autograd saves."""
        storage = tensor.untyped_storage()
        if not tensor.numel() or storage.data_ptr() in self._addresses:
            return tensor
        reference = _reference(storage)
        if reference.cdata not in self._exact:
            self._exact[reference.cdata] = reference
            self.exact += storage.nbytes()
        if self.bits == EXACT or not tensor.is_floating_point() or _is_statistic(tensor):
            self.stored += 0 if reference.cdata in self._whole else storage.nbytes()
            self._whole.add(reference.cdata)
            return tensor
        layout = () if tensor.is_contiguous() else (tensor.shape, tensor.stride())
        key = (reference.cdata, tensor.storage_offset(), tensor.numel(), tensor.dtype, layout)
        if key not in self._codes:
            self._codes[key] = encode(tensor, self.bits)
            self.stored += self._codes[key].nbytes
        return self._codes[key], tensor.shape, tensor.dtype

    @staticmethod
    def unpack(stored: Tensor | tuple[Codes, torch.Size, torch.dtype]) -> Tensor:
        """Returns the tensor that a gradient is computed with."""
        if isinstance(stored, Tensor):
            return stored
        codes, shape, dtype = stored
        return codes.values(shape, dtype)

    def forget(self) -> None:
        """Leaves stored tensors to autograd, which frees them one by one."""
        for part in (self._kept, self._addresses, self._codes, self._exact, self._whole):
            part.clear()

    def _keep(self, tensor: Tensor) -> None:
        if tensor.numel():
            self._kept.append(tensor)
            self._addresses.add(tensor.untyped_storage().data_ptr())


@contextmanager
def _hooked(part: nn.Module, keep: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `keep` with what the module returns within the block."""
    handle = part.register_forward_hook(lambda _part, _inputs, output: keep(output))
    try:
        yield
    finally:
        handle.remove()


def _reference(storage: torch.UntypedStorage) -> StorageWeakRef:
    """Returns a weak reference, whose `cdata` no other memory has as long as it lives."""
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _is_statistic(tensor: Tensor) -> bool:
    """Whether a tensor has the shape of a statistic: `(channels,)`, `(b, 1)` or `(b, positions, 1)`."""
    return tensor.ndim < 2 or (tensor.ndim < 4 and tensor.shape[-1] == 1)

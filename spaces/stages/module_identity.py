"""A digest of a torch module's code, structure and state that is equal in every process."""

import re
import sys
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from functools import partial
from types import FunctionType, MethodType
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import nn

from spaces.code_digest import LIBRARIES, bytecode, code_digest
from spaces.digest import digest_of

_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_HOLDERS = (Mapping, Sequence, Set)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_OPAQUE = frozenset({*sys.stdlib_module_names, *LIBRARIES})  # their objects are represented by `repr` alone
_TORCHS = frozenset(vars(nn.Module()))  # attributes that torch sets on every module


def identity(module: nn.Module, with_values: bool = True) -> str:
    """Returns 16 hex digits over everything that decides what the network computes, and how it is trained.

    For every module these are the code of its class, its attributes and its forward hooks; for every
    parameter and buffer the name, dtype, shape, values, `requires_grad`, and which others are the same
    tensor.

    Args:
        module: The network. Its mode (`training`) is left out.
        with_values: Whether the values of parameters and buffers are part of the digest.
    """
    tensors = {**dict(module.named_buffers(remove_duplicate=False)), **module.state_dict(keep_vars=True)}
    names = {id(part): f"module {name}" for name, part in module.named_modules()}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), f"tensor {name}")
    values = _Values(names)
    parts = [_tensor(tensor, with_values) if isinstance(tensor, torch.Tensor) else values.of(tensor)
             for tensor in tensors.values()]  # fmt: skip
    same = [(name, names[id(tensor)]) for name, tensor in tensors.items()]
    found = [
        (name, names[id(part)], code_digest(type(part)), values.of(_attributes(part)))
        for name, part in module.named_modules(remove_duplicate=False)
    ]
    return digest_of(same, parts, found)


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns all parameters and buffers by name, detached; also the buffers that a state dict leaves out, e.g. attention masks."""
    buffers = {name: buffer.detach() for name, buffer in module.named_buffers(remove_duplicate=False)}
    return {**buffers, **module.state_dict()}


class _Values:
    """Computes digests of arbitrary Python values.

    Args:
        names: `id` to name of the objects that are represented by their names: the network's own modules and
            tensors.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._open: list[int] = []  # ids of the values being digested: a value may contain itself

    def of(self, value: object) -> str:
        """Returns a text that is equal for equal values; a list and a tuple of equal items are equal."""
        if type(value) in _PLAIN:
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._names:
            return self._names[id(value)]
        if isinstance(value, torch.Tensor):
            return _tensor(value)
        if id(value) in self._open:
            return f"around {len(self._open) - self._open.index(id(value))}"
        self._open.append(id(value))
        found = [self.of(part) for part in _parts(value)]
        self._open.pop()
        return digest_of(_kind(value), sorted(found) if isinstance(value, Set) else found)


def _tensor(tensor: torch.Tensor, with_values: bool = True) -> str:
    plain = tensor.detach().cpu().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if with_values else b""
    return digest_of(str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, data)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Returns a module's own attributes, by name, without those that torch sets, and its forward hooks."""
    own = {key: value for key, value in sorted(vars(module).items()) if key not in _TORCHS}
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    return {**own, "hooks": hooks}


def _kind(value: object) -> str:
    kind = type(value)
    return "sequence" if kind in (list, tuple) else f"{kind.__module__}.{kind.__qualname__}"


def _parts(value: Any) -> list[Any]:
    """Returns the parts of a value that its digest depends on."""
    if type(value) in (list, tuple):
        return list(value)
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [bytecode(value.__code__), code_digest(value), value.__defaults__, value.__kwdefaults__, cells]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, Enum):
        return [value.name, code_digest(type(value))]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [value.dtype.str, value.shape, value.tobytes()]
    if isinstance(value, nn.Module):  # one that is not registered
        return [
            code_digest(type(value)),
            _attributes(value),
            value._parameters,
            value._buffers,
            value._modules,
        ]
    if isinstance(value, ref):  # torch's weak references to weights that are registered elsewhere
        return []
    if isinstance(value, type):
        return [code_digest(value)]
    if type(value).__module__.partition(".")[0] in _OPAQUE:
        return _items(value) if isinstance(value, _HOLDERS) else [_ADDRESS.sub("", repr(value))]
    slots = [getattr(value, name, None) for name in sorted(getattr(type(value), "__slots__", ()))]
    return [code_digest(type(value)), *_items(value), sorted(getattr(value, "__dict__", {}).items()), slots]


def _items(value: Any) -> list[Any]:
    """Returns the items of a container; an empty list for anything else."""
    if isinstance(value, Mapping):
        return list(value.items())
    return list(value) if isinstance(value, _HOLDERS) else []

"""Wraps a torch module as an artifact."""

import hashlib
from typing import TYPE_CHECKING

from spaces.stages.artifact import Artifact, InputSpec, Step

if TYPE_CHECKING:
    import torch


def torch_artifact(module: "torch.nn.Module", spec: InputSpec, provenance: tuple[Step, ...] = ()) -> Artifact:
    """Wraps a module, set to eval mode; the digest is that of its structure and of every parameter and buffer.

    Args:
        module: The network; maps `(n, *spec.shape)` float32 to `(n, n_outputs)`.
        spec: Its input.
        provenance: The steps that led here, oldest first.
    """
    module.eval()
    return Artifact("torch", module, spec, module_digest(module), provenance)


def module_digest(module: "torch.nn.Module") -> str:
    """Returns 16 hex digits over the module's class, structure and state (names, dtypes, shapes, values)."""
    import torch

    kind = type(module)
    hasher = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__} {module!r}".encode())
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):  # a module's extra state
            hasher.update(f"{name} {value!r}".encode())
            continue
        tensor = value.detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()[:16]

"""Wraps a torch module as an artifact."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.stages.artifact import Artifact, InputSpec, Step, TensorSpec

if TYPE_CHECKING:
    import torch


def torch_artifact(module: "torch.nn.Module", spec: InputSpec, provenance: tuple[Step, ...] = ()) -> Artifact:
    """Wraps a module and sets it to eval mode; the digest is over its code and state.

    Args:
        module: The network; maps `(n, *spec.shape)` to `(n, n_outputs)`. Several inputs are passed by name. From now on it
            takes packed inputs, too: see `Unpack`.
        spec: The module's inputs.
        provenance: The steps that led here, oldest first.
    """
    module.eval()
    _detach_attributes(module)
    if (spec.others or spec.dtype != "float32") and unpacker_of(module) is None:
        module.register_forward_pre_hook(Unpack(spec.tensors), with_kwargs=True)
    return Artifact("torch", module, spec, module_digest(module), provenance)


def _detach_attributes(module: "torch.nn.Module") -> None:
    """Detaches tensors that are no parameters, e.g. the weights that the old weight norm makes: else no copy is possible."""
    import torch

    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                setattr(part, name, value.detach())


@dataclass(frozen=True)
class Unpack:
    """A hook that lets a network take its inputs as one float tensor, as `inputs.packed` makes it.

    Attributes:
        tensors: The network's inputs.
    """

    tensors: tuple[TensorSpec, ...]

    def __call__(
        self, module: "torch.nn.Module", arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Returns the arguments by name and in their types; None if they are so already."""
        if named or len(arguments) != 1:
            return None
        if len(self.tensors) == 1:
            return (_as_type(arguments[0], self.tensors[0]),), {}
        ordered = sorted(self.tensors, key=lambda t: t.name)
        parts = arguments[0].split([prod(t.shape) for t in ordered], dim=1)
        return (), {
            t.name: _as_type(part.reshape(len(part), *t.shape), t)
            for t, part in zip(ordered, parts, strict=True)
        }

    def noise(self, n: int, generator: "torch.Generator") -> "torch.Tensor":
        """Returns `n` random packed examples: normal, or 0 and 1 where an input takes no floating-point numbers."""
        import torch

        ordered = sorted(self.tensors, key=lambda t: t.name)
        parts = [
            torch.randn(n, *t.shape, generator=generator)
            if np.dtype(t.dtype).kind == "f"
            else torch.randint(0, 2, (n, *t.shape), generator=generator).float()
            for t in ordered
        ]
        return parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)


def unpacker_of(module: "torch.nn.Module") -> Unpack | None:
    """Returns the hook by which a network takes packed inputs; None if it takes one float input as it is."""
    hooks = module._forward_pre_hooks.values()
    return next((hook for hook in hooks if isinstance(hook, Unpack)), None)


def noise_for(
    module: "torch.nn.Module", shape: tuple[int, ...], n: int, generator: "torch.Generator"
) -> "torch.Tensor":
    """Returns `n` random examples that a network takes, `(n, *shape)`."""
    import torch

    unpack = unpacker_of(module)
    return torch.randn(n, *shape, generator=generator) if unpack is None else unpack.noise(n, generator)


def _as_type(tensor: "torch.Tensor", spec: TensorSpec) -> "torch.Tensor":
    """Returns a tensor in an input's type; floating-point numbers keep the precision that the network computes in."""
    import torch

    if spec.dtype == "float32":
        return tensor
    return tensor.to(getattr(torch, spec.dtype))


def module_digest(module: "torch.nn.Module") -> str:
    """Returns 16 hex digits over everything that decides what the module computes: see `identity`."""
    from spaces.stages.module_identity import identity

    return identity(module)

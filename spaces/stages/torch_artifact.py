"""Wraps a torch module as an artifact."""

from typing import TYPE_CHECKING

from spaces.stages.artifact import Artifact, InputSpec, Step

if TYPE_CHECKING:
    import torch


def torch_artifact(module: "torch.nn.Module", spec: InputSpec, provenance: tuple[Step, ...] = ()) -> Artifact:
    """Wraps a module and sets it to eval mode; the digest is over its code and state.

    Args:
        module: The network; maps `(n, *spec.shape)` float32 to `(n, n_outputs)`.
        spec: The module's input.
        provenance: The steps that led here, oldest first.
    """
    module.eval()
    return Artifact("torch", module, spec, module_digest(module), provenance)


def module_digest(module: "torch.nn.Module") -> str:
    """Returns 16 hex digits over everything that decides what the module computes: see `identity`."""
    from spaces.stages.module_identity import identity

    return identity(module)

"""Networks whose parts have more parameters in training than they need afterwards."""

from copy import deepcopy
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Foldable(Protocol):
    """A module that has an equal one with fewer operators, e.g. parallel convolutions that add up to one."""

    def folded(self) -> nn.Module:
        """Returns the equal module; its parameters have the names of parameters of this one."""
        ...


def folded(network: nn.Module) -> nn.Module:
    """Returns a copy of a network in eval mode with every `Foldable` part folded; the network itself if it has none."""
    if not any(isinstance(part, Foldable) for part in network.modules()):
        return network
    made = deepcopy(network).eval()
    return made.folded() if isinstance(made, Foldable) else _with_folded_parts(made)


def _with_folded_parts(module: nn.Module) -> nn.Module:
    for name, part in module.named_children():
        setattr(module, name, part.folded() if isinstance(part, Foldable) else _with_folded_parts(part))
    return module

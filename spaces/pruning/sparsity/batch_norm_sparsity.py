"""L1 penalty on BatchNorm's scales (network slimming, Liu et al. 2017, arXiv 1708.06519)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spaces.errors import StageError
from spaces.pruning.groups.group import Group, Slice
from spaces.pruning.groups.slices import channel_values
from spaces.pruning.sparsity.sparsifier import Aim, Sparsifier, Subject

NEARLY_ZERO = 0.01  # smaller scales count as zero


class BatchNormSparsity(Sparsifier):
    """Adds `strength * sum |gamma|` to the loss, by its subgradient, over the scales of all channels that can be cut.

    Scales get close to zero, but not exactly zero: subgradient steps oscillate around it. Channels that no
    BatchNorm follows are not affected.
    """

    name = "bn_gamma"
    has_level = False

    def __init__(self, subject: Subject, aim: Aim) -> None:
        """Finds the scales.

        Raises:
            StageError: No group has a BatchNorm with scales.
        """
        self._parameters = dict(subject.module.named_parameters())
        self._groups, self._aim = subject.groups, aim
        self._scales = {group.name: scales(group, self._parameters) for group in subject.groups}
        if not any(self._scales.values()):
            named = ", ".join(self._scales) or "any layer: no channel can be cut"
            raise StageError(
                f"sparsify.method={self.name} needs a BatchNorm with scales (affine=True), but none follows {named}; "
                "group_envelope and bottleneck need none"
            )

    def after_backward(self, step: int, n_steps: int) -> None:
        """Adds `strength * sign(gamma)` to the gradient of every scale."""
        strength = self._aim.strength_at(step, n_steps)
        for name in {part.name for parts in self._scales.values() for part in parts}:
            gamma = self._parameters[name]
            if gamma.grad is not None:
                gamma.grad.add_(gamma.detach().sign(), alpha=strength)

    def finish(self) -> dict[str, Tensor]:
        """Does not change the network; a channel is on if any of its scales is at least `NEARLY_ZERO`."""
        return {group.name: self._on(group) for group in self._groups}

    def _on(self, group: Group) -> Tensor:
        parts = self._scales[group.name]
        if not parts:
            return torch.ones(group.n_channels, dtype=torch.bool)
        sizes = [channel_values(self._parameters[part.name], part).abs().amax(1) for part in parts]
        return torch.stack(sizes).amax(0) >= NEARLY_ZERO


def scales(group: Group, parameters: Mapping[str, Tensor]) -> list[Slice]:
    """Returns the slices of a group that are scales of a BatchNorm."""
    norms = (part for part in group.slices if part.role == "norm" and part.name.endswith(".weight"))
    return [part for part in norms if part.name in parameters]

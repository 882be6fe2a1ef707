"""The balance loss of mixtures of experts (Fedus et al. 2022, arXiv 2101.03961, equations 4 to 6)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spaces.models.torch.experts import MixtureOfExperts, mixtures


@dataclass(frozen=True, eq=False)
class Balance:
    """`weight * sum over layers of N sum_i f_i P_i`: 1 a layer where all experts are used alike, N where only one is.

    f_i is the share of the tokens' choices that are expert i, P_i its mean probability, over a batch.

    Attributes:
        weight: At least 0.
        by_router: The mixtures of the network, by the name of the router.
    """

    weight: float
    by_router: Mapping[str, MixtureOfExperts]

    @classmethod
    def of(cls, module: nn.Module, weight: float) -> "Balance | None":
        """Returns the loss for a network; None if it has no mixtures, or the weight is 0."""
        found = {f"{name}.router": mixture for name, mixture in mixtures(module).items()}
        return cls(weight, found) if weight and found else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modules whose outputs the loss needs."""
        return tuple(self.by_router)

    def __call__(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Returns a scalar.

        Args:
            logits: The routers' outputs `(..., n_experts)`, by name, among others.
        """
        losses = [_imbalance(*mixture.routed(logits[name])) for name, mixture in self.by_router.items()]
        return self.weight * torch.stack(losses).sum()


def _imbalance(probabilities: Tensor, chosen: Tensor) -> Tensor:
    n_experts = probabilities.shape[-1]
    shares = chosen.reshape(-1, n_experts).mean(0) / chosen.sum(-1).mean()
    return n_experts * (shares * probabilities.reshape(-1, n_experts).mean(0)).sum()

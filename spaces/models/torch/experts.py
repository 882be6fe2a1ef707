"""A mixture of experts beside a shared one: what a router adds to a feed-forward network."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MixtureOfExperts(nn.Module):
    """`shared(x) + sum_e p_e expert_e(x)` over the `active` experts of the greatest probability p (MoTE, arXiv 2506.14435).

    All experts are computed for every token, and those that are not chosen weigh nothing: results are those of a runtime that
    computes the chosen ones alone, times are not.

    Args:
        shared: The expert that every token uses: `(..., dim)` -> `(..., dim)`.
        experts: The routed experts, of the same interface.
        router: Maps `(..., dim)` to a logit of each routed expert.
        active: Routed experts that a token uses.
    """

    def __init__(
        self, shared: nn.Module, experts: Iterable[nn.Module], router: nn.Module, active: int
    ) -> None:
        super().__init__()
        self.shared, self.router, self.experts = shared, router, nn.ModuleList(experts)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """Returns `(..., dim)` of inputs of that shape."""
        probabilities, chosen = self.routed(self.router(x))
        weights = probabilities * chosen
        y: Tensor = self.shared(x)
        for weight, expert in zip(weights.unsqueeze(-1).unbind(-2), self.experts, strict=True):
            y = y + weight * expert(x)
        return y

    def routed(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the probabilities of the experts, and 1 where one is chosen, else 0; both `(..., n_experts)`.

        Args:
            logits: `(..., n_experts)`, the router's.
        """
        probabilities = torch.softmax(logits, dim=-1)
        best = probabilities.topk(self.active, dim=-1).indices  # (..., active)
        numbers = torch.arange(len(self.experts), device=logits.device)
        return probabilities, (best.unsqueeze(-1) == numbers).any(-2).to(logits.dtype)


def mixtures(module: nn.Module) -> dict[str, MixtureOfExperts]:
    """Returns the mixtures of experts in a network by their names."""
    return {name: part for name, part in module.named_modules() if isinstance(part, MixtureOfExperts)}

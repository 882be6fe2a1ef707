"""A Llama whose feed-forward networks became mixtures of experts: sparse upcycling (Komatsuzaki et al. 2023, arXiv 2212.05055)."""

import copy
from typing import cast

import torch
from torch import nn

from spaces.errors import ConfigError, unknown_name
from spaces.models.base import LoadContext
from spaces.models.torch.experts import MixtureOfExperts
from spaces.models.zoo.language.llama import Block, Llama, LlamaModel, SwiGLU
from spaces.stages.artifact import Artifact
from spaces.stages.torch_artifact import torch_artifact

EXPERT_INITS = ("zero", "dense")
_ROUTER_STD = 0.02


class MoeModel(LlamaModel):
    """Keeps each feed-forward network as the shared expert, and adds routed ones and a router (MoTE, arXiv 2506.14435).

    Only routers and routed experts can be trained; everything else stays bit for bit.

    Args:
        checkpoint: A dense network's, as `LlamaModel` takes it.
        n_experts: Routed experts of a block.
        top_k: Routed experts that a token uses.
        every: 1 upcycles all blocks, 2 every second one, the last included, and so on.
        expert_init: `dense` copies the feed-forward network, as MoTE does, so that the output of a block is about `1 + p` times as large
            until it is trained; `zero` copies it, but for the last matrix, which is zero: then the network computes what the dense
            one does until it is trained.
        **sizes: See `LlamaModel`.

    Raises:
        ConfigError: A size is out of range, or more experts are active than there are.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        n_experts: int = 4,
        top_k: int = 1,
        every: int = 1,
        expert_init: str = "zero",
        **sizes: int,
    ) -> None:
        super().__init__(checkpoint, **sizes)
        for name, size in (("n_experts", n_experts), ("top_k", top_k), ("every", every)):
            if type(size) is not int or size < 1:
                raise ConfigError(f"model.{name} must be a whole number from 1 on, not {size!r}")
        if top_k > n_experts:
            raise ConfigError(f"model.top_k must be at most model.n_experts={n_experts}, not {top_k}")
        if expert_init not in EXPERT_INITS:
            raise ConfigError(unknown_name("initial value", expert_init, EXPERT_INITS, "model.expert_init"))
        self.n_experts, self.top_k, self.every, self.expert_init = n_experts, top_k, every, expert_init

    def load(self, context: LoadContext) -> Artifact:
        """Returns the network in eval mode.

        Raises:
            InputError: As `LlamaModel.load`.
            ConfigError: `every` is more than the number of blocks.
        """
        dense = super().load(context)
        module = cast(Llama, dense.model)
        if self.every > len(module.blocks):
            raise ConfigError(
                f"model.every must be at most {len(module.blocks)}, the number of blocks, not {self.every}"
            )
        module.requires_grad_(False)
        generator = torch.Generator().manual_seed(context.seed)
        for block in [*module.blocks][self.every - 1 :: self.every]:
            block = cast(Block, block)
            block.ffn = self._mixture(block.ffn, generator)  # type: ignore[assignment]
        return torch_artifact(module, dense.input)

    def _mixture(self, shared: SwiGLU, generator: torch.Generator) -> MixtureOfExperts:
        router: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, shared.gate.in_features, self.n_experts, bias=False
        )
        nn.init.normal_(router.weight, std=_ROUTER_STD, generator=generator)
        experts = [copy.deepcopy(shared).requires_grad_(True) for _ in range(self.n_experts)]
        if self.expert_init == "zero":
            for expert in experts:
                nn.init.zeros_(expert.down.weight)
        return MixtureOfExperts(shared, experts, router, self.top_k)

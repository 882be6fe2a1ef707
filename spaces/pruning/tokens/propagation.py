"""GTP: in each block the least important tokens are dropped, and their values go to their neighbours (arXiv 2311.03035)."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spaces.pruning.tokens.graphs import normalised, semantic_graph, spatial_graph
from spaces.pruning.tokens.importance import attention_importance, taken
from spaces.pruning.tokens.token_network import TokenBlock


@dataclass(frozen=True)
class Propagation:
    """Settings.

    Attributes:
        drop: Tokens that go in each block.
        selection: Which go first: one of `SELECTIONS`.
        graph: One of `GRAPHS`.
        neighbours: Edges from each token in the semantic graph.
        alpha: Factor on what goes to neighbours; 0 drops the tokens.
        token_scale: Whether tokens that took others in count for more in the attention.
    """

    drop: int
    selection: str
    graph: str
    neighbours: int
    alpha: float
    token_scale: bool


class PropagatingBlocks(nn.Sequential):
    """Transformer blocks that drop tokens after the attention and propagate their values.

    Args:
        blocks: The blocks.
        settings: How.
        grid: Height and width in patches.
        n_class: Number of tokens at the front that stay.
        seed: Of the random selection.
    """

    spatial: Tensor
    ranks: Tensor

    def __init__(
        self, blocks: nn.Sequential, settings: Propagation, grid: tuple[int, int], n_class: int, seed: int
    ) -> None:
        super().__init__(OrderedDict(blocks.named_children()))
        self.settings, self.n_class = settings, n_class
        n_tokens = grid[0] * grid[1]
        ranks = torch.randperm(n_tokens, generator=torch.Generator().manual_seed(seed)).float()
        self.register_buffer("spatial", spatial_graph(grid), persistent=False)
        self.register_buffer("ranks", ranks, persistent=False)

    def extra_repr(self) -> str:
        """Returns the settings."""
        return str(self.settings)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, width)` -> `(n, fewer tokens, width)`."""
        state = _State(x, self._graph(x), self.ranks.expand(x.shape[0], -1), None)
        for block in self:
            assert isinstance(block, TokenBlock)
            bias = None if state.scales is None else state.scales.log()
            state.tokens, attention = block.attend(state.tokens, bias)
            if self.settings.drop:
                self._reduce(state, attention)
            state.tokens = block.feed(state.tokens)
        return state.tokens

    def _graph(self, x: Tensor) -> Tensor:
        """Returns the normalised graph of each image's patches, `(n, patches, patches)`."""
        settings = self.settings
        spatial = self.spatial.expand(x.shape[0], -1, -1)
        if settings.graph == "spatial" or not settings.alpha:
            return normalised(spatial)
        semantic = semantic_graph(x[:, self.n_class :], settings.neighbours)
        return normalised(semantic if settings.graph == "semantic" else torch.maximum(spatial, semantic))

    def _reduce(self, state: "_State", attention: Tensor) -> None:
        """Drops tokens and gives their values to those that stay (eq. 6 and 7)."""
        settings, front = self.settings, self.n_class
        scores = (
            state.ranks
            if settings.selection == "random"
            else attention_importance(attention, front, settings.selection)
        )
        order = scores.topk(scores.shape[1], dim=1).indices
        n_kept = scores.shape[1] - settings.drop
        kept, gone = order[:, :n_kept].sort(dim=1).values, order[:, n_kept:]
        ends, patches = state.tokens[:, :front], state.tokens[:, front:]
        values = taken(patches, kept)
        if settings.alpha:
            rows = taken(state.graph, kept)
            given = rows.gather(2, gone.unsqueeze(1).expand(-1, n_kept, -1))
            values = values + settings.alpha * given @ taken(patches, gone)
            state.graph = rows.gather(2, kept.unsqueeze(1).expand(-1, n_kept, -1))
            if settings.token_scale:
                state.scale(given, kept, gone, settings.alpha, front)
        state.tokens = torch.cat([ends, values], dim=1)
        state.ranks = state.ranks.gather(1, kept)


@dataclass
class _State:
    """What goes from one block to the next.

    Attributes:
        tokens: `(n, tokens, width)`.
        graph: Of the patches that are left, `(n, patches, patches)`.
        ranks: Random importance of the patches that are left, `(n, patches)`.
        scales: Number of tokens that each stands for, `(n, tokens)`; None before any was taken in.
    """

    tokens: Tensor
    graph: Tensor
    ranks: Tensor
    scales: Tensor | None

    def scale(self, given: Tensor, kept: Tensor, gone: Tensor, alpha: float, front: int) -> None:
        """Adds the scales of those that go to those that stay."""
        old = torch.ones_like(self.tokens[..., 0]) if self.scales is None else self.scales
        patches = old[:, front:]
        taken_in = (given @ patches.gather(1, gone).unsqueeze(2)).squeeze(2)
        self.scales = torch.cat([old[:, :front], patches.gather(1, kept) + alpha * taken_in], dim=1)

"""H2OT and HoT: sequences get shorter between blocks, and are interpolated to their full length at the end.

H2OT (Li et al. 2025) cuts in several places, HoT (Li et al. 2024, arXiv 2311.12028) in one.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from spaces.pruning.tokens.importance import density_peaks, highest, motion, taken
from spaces.pruning.tokens.token_network import TokenBlock


class PyramidBlocks(nn.Sequential):
    """Transformer blocks before some of which tokens are dropped. It has no parameters besides the blocks'.

    Args:
        blocks: The blocks.
        cuts: Number of tokens, those at the front not counted, that are left before a block, by the block's place.
        pick: Which stay: `dpc_knn`, the centres of clusters; `sample`, at equal distances; `attention`, those that the block
            before used most; `motion`, those that differ most from the one before.
        neighbours: Nearest tokens that make the density of `dpc_knn`.
        recover: Whether the outputs are interpolated to the full length.
        n_class: Number of tokens at the front that stay.
    """

    def __init__(
        self,
        blocks: nn.Sequential,
        cuts: dict[int, int],
        pick: str,
        neighbours: int,
        recover: bool,
        n_class: int,
    ) -> None:
        super().__init__(OrderedDict(blocks.named_children()))
        self.cuts, self.pick, self.neighbours = cuts, pick, neighbours
        self.recover, self.n_class = recover, n_class

    def extra_repr(self) -> str:
        """Returns the settings."""
        return f"cuts={self.cuts}, pick={self.pick}, recover={self.recover}"

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, width)` -> the same shape; without recovery, fewer tokens."""
        front, n_tokens = self.n_class, x.shape[1] - self.n_class
        places = torch.arange(n_tokens, device=x.device).expand(x.shape[0], -1)
        used = x[..., 0]  # by the block before
        for at, block in enumerate(self):
            if at in self.cuts:
                kept = self.picked(x[:, front:], used[:, front:], self.cuts[at])
                places = places.gather(1, kept)
                x = torch.cat([x[:, :front], taken(x[:, front:], kept)], dim=1)
            if self.pick == "attention" and at + 1 in self.cuts:
                assert isinstance(block, TokenBlock)
                x, attention = block.attend(x)
                x, used = block.feed(x), attention.mean(1).sum(1)
            else:
                x = block(x)
        if not self.recover:
            return x
        return torch.cat([x[:, :front], interpolated(x[:, front:], places, n_tokens)], dim=1)

    def picked(self, tokens: Tensor, used: Tensor, n: int) -> Tensor:
        """Returns the places of the tokens that stay, in ascending order, `(batch, n)` int64.

        Args:
            tokens: `(batch, tokens, width)`.
            used: How much the block before used them, `(batch, tokens)`.
            n: Number of tokens that stay.
        """
        if self.pick == "sample":
            return sampled(tokens.shape[1], n).to(tokens.device).expand(tokens.shape[0], -1)
        if self.pick == "dpc_knn":
            return highest(density_peaks(tokens, self.neighbours), n)
        return highest(motion(tokens) if self.pick == "motion" else used, n)


def sampled(n_tokens: int, n: int) -> Tensor:
    """Returns places at equal distances, the ends included, `(n,)` int64."""
    return torch.linspace(0, n_tokens - 1, n, dtype=torch.float64).round().to(torch.int64)


def interpolated(tokens: Tensor, places: Tensor, n_tokens: int) -> Tensor:
    """Returns a sequence of full length: linear between the places, and as the outermost beyond them.

    Args:
        tokens: `(n, kept, width)`.
        places: Of the tokens in the sequence, ascending, `(n, kept)` int64.
        n_tokens: Full length.
    """
    at = places.to(tokens.dtype)
    t = torch.arange(n_tokens, device=tokens.device, dtype=tokens.dtype)[:, None]
    gaps = (at[:, 1:] - at[:, :-1])[:, None]
    ones = torch.ones_like(tokens[:, :1, :1]).expand(-1, n_tokens, -1)
    rising = torch.cat([ones, (t - at[:, None, :-1]) / gaps], dim=2)
    falling = torch.cat([(at[:, None, 1:] - t) / gaps, ones], dim=2)
    return torch.minimum(rising, falling).clamp(0, 1) @ tokens

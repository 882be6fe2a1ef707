"""Graphs of the tokens of an image, along which they are propagated (Xu et al. 2024, arXiv 2311.03035, section 3.2)."""

import torch
from torch import Tensor
from torch.nn import functional


def spatial_graph(grid: tuple[int, int]) -> Tensor:
    """Returns which patches touch each other, corners included, `(tokens, tokens)` of 0 and 1, without loops.

    Args:
        grid: Height and width in patches.
    """
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1]))
    apart = (places[:, None] - places[None]).abs().amax(-1)
    return (apart == 1).to(torch.float32)


def semantic_graph(tokens: Tensor, neighbours: int) -> Tensor:
    """Returns which tokens are among the most similar ones of each, by cosine, `(n, tokens, tokens)` of 0 and 1, without loops.

    Args:
        tokens: `(n, tokens, width)`.
        neighbours: Number of edges from each token.
    """
    directions = functional.normalize(tokens, dim=2)
    alike = directions @ directions.transpose(1, 2)
    alike = alike - 3 * torch.eye(tokens.shape[1], device=tokens.device)  # cosines differ by 2 at most
    least = alike.topk(neighbours, dim=2).values[..., -1:]
    return (alike >= least).to(tokens.dtype)


def normalised(graph: Tensor) -> Tensor:
    """Returns `D^-1/2 A D^-1/2` of adjacencies `(..., tokens, tokens)`, with the degrees `D` of the rows."""
    scale = graph.sum(-1).clamp(min=1.0).rsqrt()
    return scale.unsqueeze(-1) * graph * scale.unsqueeze(-2)

"""Importance of tokens by an attention (GTP: Xu et al. 2024, arXiv 2311.03035, section 3.3), or by other properties."""

import torch
from torch import Tensor


def attention_importance(attention: Tensor, n_class: int, selection: str) -> Tensor:
    """Returns the importance of the tokens that stand for patches, `(n, tokens - n_class)`.

    `diagonal` is how much a token keeps to itself, `image` how much all use it, `mixed` their product, `class` how much the
    class token uses it, `cosine` how little its attention is like the others'.

    Args:
        attention: `(n, heads, tokens, tokens)`.
        n_class: Number of tokens at the front that stand for no patch.
        selection: One of `SELECTIONS` but `random`; the heads' maximum or mean counts.
    """
    kind, _, over = selection.rpartition("_")

    def pooled(scores: Tensor) -> Tensor:
        return scores.amax(1) if over == "max" else scores.mean(1)

    if kind == "class":
        return pooled(attention[:, :, 0, n_class:])
    if kind == "cosine":
        rows = pooled(attention[:, :, n_class:])
        rows = rows / rows.norm(dim=-1, keepdim=True)
        alike: Tensor = rows @ rows.transpose(1, 2)
        return -alike.sum(-1)
    own = pooled(attention.diagonal(dim1=2, dim2=3)[..., n_class:])
    used = pooled(attention[..., n_class:].sum(2))
    return {"diagonal": own, "image": used, "mixed": own * used}[kind]


def motion(tokens: Tensor) -> Tensor:
    """Returns how far each token is from the one before, `(n, tokens)`; the first, where a sequence starts, counts as farthest.

    Args:
        tokens: `(n, tokens, width)`.
    """
    steps = (tokens[:, 1:] - tokens[:, :-1]).norm(dim=2)
    return torch.cat([steps.amax(1, keepdim=True) + 1, steps], dim=1)


def density_peaks(tokens: Tensor, neighbours: int) -> Tensor:
    """Returns how much each token is the centre of a cluster: density times distance from the nearest denser one, `(n, tokens)`.

    DPC-kNN (Du et al. 2016), as HoT (Li et al. 2024, arXiv 2311.12028) uses it.

    Args:
        tokens: `(n, tokens, width)`.
        neighbours: Nearest tokens, itself included, that make the density.
    """
    n_tokens, width = tokens.shape[1:]
    squares = (tokens * tokens).sum(2)
    squared = squares[:, :, None] + squares[:, None] - 2 * tokens @ tokens.transpose(1, 2)
    squared = squared.clamp(min=0.0) / width
    near = squared.topk(min(neighbours, n_tokens), dim=2, largest=False).values
    # equal densities are told apart by their place: HoT adds random numbers of this size
    density = torch.exp(-near.mean(2)) + 1e-6 * torch.arange(n_tokens, device=tokens.device) / n_tokens
    denser = (density[:, None] > density[:, :, None]).to(tokens.dtype)
    distance = (squared + 1e-12).sqrt()
    farthest = distance.amax((1, 2), keepdim=True)
    separation = (distance * denser + farthest * (1 - denser)).amin(2)
    return separation * density


def highest(scores: Tensor, n: int) -> Tensor:
    """Returns the places of the highest scores in ascending order, each once, `(batch, n)` int64.

    Args:
        scores: `(batch, tokens)`.
        n: Number of places.
    """
    return scores.topk(n, dim=1).indices.sort(dim=1).values


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """Returns the tokens at these places, `(n, places, width)`.

    Args:
        tokens: `(n, tokens, width)`.
        places: `(n, places)` int64.
    """
    return tokens.gather(1, places.unsqueeze(2).expand(-1, -1, tokens.shape[2]))

"""Chooses the channels to keep under a budget of MACs, by descending score."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
from torch import Tensor

from spaces.errors import StageError
from spaces.pruning.budgets.mac_shares import Kept, MacShares

CLOSE = 0.01  # a budget counts as used up if at most this share of it is left
_EXCHANGES = 20  # most exchanges of channels between groups, to use up the budget

Mask = dict[str, Tensor]
Channel = tuple[str, int]
"""A group's name, and the index of a channel in it."""


def check_level(shares: MacShares, level: float, stage: str) -> None:
    """Checks that a budget can be met with at least one channel in every group.

    Raises:
        StageError: The budget cannot be met; the message states the least share of MACs that remains.
    """
    if not shares.groups:
        raise StageError(f"{stage}.level={level:g} cannot be met: no channel of this network can be cut")
    least = shares.least()
    if level < least:
        raise StageError(
            f"{stage}.level={level:g} cannot be met: with one channel left in each of the {len(shares.groups)} groups that "
            f"can be cut, {least:.3g} of the MACs stay; level must be at least that"
        )


def kept_within(shares: MacShares, scores: Kept, level: float) -> Mask:
    """Returns which channels to keep, `(n_channels,)` bool by name of the group: the best ones that fit the budget.

    The best channel of every group is kept. Channels that do not fit the budget are skipped. If more than
    `CLOSE` of the budget remains, a skipped channel replaces the worst channels of another group. A channel
    with a score of minus infinity is only kept if it is the best of its group.

    Args:
        shares: The MACs of channels.
        scores: Importance of each channel, `(n_channels,)`; comparable between groups.
        level: Share of MACs that may be kept; `check_level` must accept it.
    """
    channels = _best_first(scores)
    kept = _filled(shares, {name: best_only(values) for name, values in scores.items()}, channels, level)
    for _ in range(_EXCHANGES):
        share = float(shares.of(kept))
        if share >= (1 - CLOSE) * level:
            break
        better = max(
            _exchanged(shares, kept, channels, level), key=lambda mask: float(shares.of(mask)), default=kept
        )
        better = _filled(shares, better, channels, level)
        if float(shares.of(better)) <= share:
            break
        kept = better
    return kept


def best_only(scores: Tensor) -> Tensor:
    """Returns a mask `(n_channels,)` of the one channel with the best score."""
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[int(scores.argmax())] = True
    return mask


def _best_first(scores: Kept) -> list[Channel]:
    flat = torch.cat([values.double() for values in scores.values()])
    channels = [(name, at) for name, values in scores.items() for at in range(len(values))]
    order = torch.argsort(flat, descending=True, stable=True)
    return [channels[position] for position in order[flat[order] > -torch.inf].tolist()]


def _filled(shares: MacShares, kept: Mask, channels: Sequence[Channel], level: float) -> Mask:
    """Returns the mask after adding, by descending score, every channel that fits the budget."""
    filled = {name: mask.clone() for name, mask in kept.items()}
    for name, at in channels:
        if not filled[name][at]:
            filled[name][at] = True
            filled[name][at] = float(shares.of(filled)) <= level
    return filled


def _exchanged(shares: MacShares, kept: Mask, channels: Sequence[Channel], level: float) -> Iterator[Mask]:
    """Yields, for each pair of groups, a mask within the budget with one channel more of the first group.

    It has as few channels less of the second group as the budget requires.
    """
    for more, less in permutations(kept, 2):
        added = next((at for name, at in channels if name == more and not kept[name][at]), None)
        if added is None:
            continue
        changed = {name: mask.clone() for name, mask in kept.items()}
        changed[more][added] = True
        worst = [at for name, at in reversed(channels) if name == less and kept[name][at]]
        for at in worst[:-1]:
            changed[less][at] = False
            if float(shares.of(changed)) <= level:
                yield changed
                break

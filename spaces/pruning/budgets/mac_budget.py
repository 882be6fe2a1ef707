"""Chooses the channels to keep under a budget of MACs, best ones first."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
from torch import Tensor

from spaces.errors import StageError
from spaces.pruning.budgets.mac_shares import Kept, MacShares

CLOSE = 0.01  # a budget that is used up but for this share of it is met
_EXCHANGES = 20  # at most, to come closer

Mask = dict[str, Tensor]
Place = tuple[str, int]
"""A group's name, and the number of a channel in it."""


def check_level(shares: MacShares, level: float, stage: str) -> None:
    """Checks that a budget can be met with at least one channel in every group.

    Raises:
        StageError: It cannot; the message names what is left at least.
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

    The best channel of every group stays. A channel that does not fit is passed over for the next one that does. If more
    than `CLOSE` of the budget is left then, a channel that did not fit takes the place of the worst ones of another group.
    Of the channels with a score of minus infinity, only the best one of a group is kept.

    Args:
        shares: What channels cost.
        scores: How much each channel matters, `(n_channels,)`; comparable between groups.
        level: Share of MACs that may be kept; one that `check_level` let pass.
    """
    places = _best_first(scores)
    kept = _filled(shares, {name: best_only(values) for name, values in scores.items()}, places, level)
    for _ in range(_EXCHANGES):
        found = float(shares.of(kept))
        if found >= (1 - CLOSE) * level:
            break
        better = max(
            _exchanged(shares, kept, places, level), key=lambda mask: float(shares.of(mask)), default=kept
        )
        better = _filled(shares, better, places, level)
        if float(shares.of(better)) <= found:
            break
        kept = better
    return kept


def best_only(scores: Tensor) -> Tensor:
    """Returns a mask `(n_channels,)` of the one channel with the best score."""
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[int(scores.argmax())] = True
    return mask


def _best_first(scores: Kept) -> list[Place]:
    flat = torch.cat([values.double() for values in scores.values()])
    places = [(name, at) for name, values in scores.items() for at in range(len(values))]
    order = torch.argsort(flat, descending=True, stable=True)
    return [places[position] for position in order[flat[order] > -torch.inf].tolist()]


def _filled(shares: MacShares, kept: Mask, places: Sequence[Place], level: float) -> Mask:
    """Returns the mask with every channel more that fits, best first."""
    filled = {name: mask.clone() for name, mask in kept.items()}
    for name, at in places:
        if not filled[name][at]:
            filled[name][at] = True
            filled[name][at] = float(shares.of(filled)) <= level
    return filled


def _exchanged(shares: MacShares, kept: Mask, places: Sequence[Place], level: float) -> Iterator[Mask]:
    """Yields, for each pair of groups, what fits with one channel more of the first and the fewest of the other less."""
    for more, less in permutations(kept, 2):
        added = next((at for name, at in places if name == more and not kept[name][at]), None)
        if added is None:
            continue
        changed = {name: mask.clone() for name, mask in kept.items()}
        changed[more][added] = True
        worst = [at for name, at in reversed(places) if name == less and kept[name][at]]
        for at in worst[:-1]:
            changed[less][at] = False
            if float(shares.of(changed)) <= level:
                yield changed
                break

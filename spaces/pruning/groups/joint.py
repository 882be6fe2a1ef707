"""What channels may be that cannot be cut as a trace shows them: with numbers that shrink, with others, or scaled anew.

A trace shows which elements depend on each other, not which numbers a `forward()` computes its shapes and scales from. Each variant is
a guess that trial cuts accept or reject.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from spaces.pruning.groups.cut import COLUMNS, INNER
from spaces.pruning.groups.group import Group, Role, Slice
from spaces.pruning.groups.sizes import Where, with_sizes

Groups = list[Group]


def variants(module: nn.Module) -> Iterator[Callable[[Groups], Groups]]:
    """Yields functions from the groups that cannot be cut yet to what they may be instead, the simplest first.

    Args:
        module: The network.
    """

    def sized(where: Where, groups: Groups) -> Groups:
        return [found for group in groups if (found := with_sizes(module, group, where)) is not None]

    def together(where: Where, groups: Groups) -> Groups:
        return joined(sized(where, groups))

    def scaled(where: Where, groups: Groups) -> Groups:
        return rescaled(sized(where, groups))

    def tied(sizes: bool, scales: bool, groups: Groups) -> Groups:
        groups = [(with_sizes(module, group, "around") or group) if sizes else group for group in groups]
        new = {group.name: group for group in rescaled(groups)} if scales else {}
        return with_heads(groups, [new.get(group.name, group) for group in groups])

    for where in get_args(Where):
        yield partial(sized, where)
    for where in get_args(Where)[2:]:
        yield partial(together, where)
    yield rescaled
    for where in get_args(Where):
        yield partial(scaled, where)
    for sizes, scales in product((False, True), repeat=2):
        yield partial(tied, sizes, scales)


def rescaled(groups: Iterable[Group]) -> Groups:
    """Returns those groups that are queries and keys, as such that keep the scale of attention's scores.

    Some networks divide scores by the root of the number of channels, which a cut changes. So queries and keys that are left share a
    factor, the root of the share that is left. Values that belong to the same channels change with them, and their consumers
    inversely.
    """
    return [_rescaled(group) for group in groups if any(part.axis == INNER for part in group.products)]


def joined(groups: Iterable[Group]) -> Groups:
    """Returns groups of as many channels that one number gives the size of, joined: they can only be cut together.

    Args:
        groups: Groups with sizes.
    """
    found: list[Groups] = []
    for group in groups:
        same = [others for others in found if any(_share_a_size(group, other) for other in others)]
        found = [others for others in found if others not in same]
        found.append([*(other for others in same for other in others), group])
    return [_join(parts) for parts in found if len(parts) > 1]


def with_heads(streams: Groups, heads: Groups) -> Groups:
    """Returns streams joined with the heads of attention that take them, where the width of a head is a share of the stream's.

    That is what `x.reshape(n, tokens, n_heads, width // n_heads)` asks for. A channel of the result is one of every head, and as many of
    the stream as make up for that.

    Args:
        streams: Groups that heads may take.
        heads: Groups of which those with products are the channels of heads.
    """
    found = []
    for stream in streams:
        taken = {part.name for part in stream.slices if part.role == "in"}
        mine = [g for g in heads if g.products and g.name != stream.name and taken & set(g.layers)]
        widths = {group.n_channels for group in mine}
        if len(widths) == 1 and stream.n_channels % (width := widths.pop()) == 0:
            found.append(_join([_folded(stream, stream.n_channels // width), *mine]))
    return found


def _rescaled(group: Group) -> Group:
    has_values = any(part.axis == COLUMNS for part in group.products)
    powers = [-0.25 if has_values and part.role == "in" else 0.25 for part in group.slices]
    return replace(
        group, slices=tuple(replace(s, power=p) for s, p in zip(group.slices, powers, strict=True))
    )


def _folded(group: Group, n: int) -> Group:
    """Returns a group of which `n` channels are one."""

    def rows(of: NDArray[np.int64]) -> NDArray[np.int64]:
        return of.reshape(group.n_channels // n, -1)

    return replace(
        group,
        n_channels=group.n_channels // n,
        slices=tuple(replace(part, rows=rows(part.rows)) for part in group.slices),
        pass_throughs=tuple(
            replace(p, inputs=rows(p.inputs), outputs=rows(p.outputs)) for p in group.pass_throughs
        ),
        products=tuple(replace(part, rows=rows(part.rows)) for part in group.products),
        sizes=tuple(replace(size, per_channel=n * size.per_channel) for size in group.sizes),
    )


def _share_a_size(a: Group, b: Group) -> bool:
    return a.n_channels == b.n_channels and bool(set(a.sizes) & set(b.sizes))


def _join(groups: Sequence[Group]) -> Group:
    return replace(
        groups[0],
        layers=tuple(dict.fromkeys(name for group in groups for name in group.layers)),
        slices=tuple(_merged(part for group in groups for part in group.slices)),
        pass_throughs=tuple(part for group in groups for part in group.pass_throughs),
        products=tuple(part for group in groups for part in group.products),
        joined=tuple(group.name for group in groups[1:]),
        sizes=tuple(dict.fromkeys(size for group in groups for size in group.sizes)),
    )


def _merged(parts: Iterable[Slice]) -> Iterator[Slice]:
    """Yields slices of which none is of the same axis, role and power as another: their rows are joined."""
    found: dict[tuple[str, int, Role, float], list[Slice]] = {}
    for part in parts:
        found.setdefault((part.name, part.axis, part.role, part.power), []).append(part)
    for same in found.values():
        yield replace(same[0], rows=np.concatenate([part.rows for part in same], axis=1))

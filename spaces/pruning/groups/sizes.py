"""Numbers in modules of the user's that equal a number of channels: the layers' own module may use them in its `forward()`."""

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from spaces.pruning.groups.group import Group, SizeAttribute


def with_sizes(module: nn.Module, group: Group) -> Group | None:
    """Returns a group with the numbers that shrink with its channels; None if there are none.

    That a number equals the number of channels does not show that it is one: trial cuts do.

    Args:
        module: The network.
        group: A group that cannot be cut without.
    """
    owners = {name.removesuffix(".weight").rpartition(".")[0] for name in group.layers}
    found = tuple(size for owner in sorted(owners) for size in _sizes(module, owner, group))
    return replace(group, sizes=found) if found else None


def _sizes(module: nn.Module, owner: str, group: Group) -> Iterator[SizeAttribute]:
    part = module.get_submodule(owner)
    if type(part).__module__.startswith("torch."):
        return
    per_channel = {group.n_channels * k: k for k in {1, *(s.rows.shape[1] for s in group.slices)}}
    for name, value in vars(part).items():
        if type(value) is int and value in per_channel:
            yield SizeAttribute(owner, name, per_channel[value])

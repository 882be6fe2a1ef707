"""Numbers in modules of the user's that equal a number of channels: the layers' own module may use them in its `forward()`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from torch import nn

from spaces.pruning.groups.derived import layer_of
from spaces.pruning.groups.group import Group, SizeAttribute
from spaces.stages.module_identity import tensors_of

Where = Literal["layer", "parent", "around", "everywhere"]


def with_sizes(module: nn.Module, group: Group, where: Where) -> Group | None:
    """Returns a group with the numbers that shrink with its channels; None if there are none.

    That a number equals the number of channels does not show that it is one: trial cuts do.

    Args:
        module: The network.
        group: A group that cannot be cut without.
        where: In which modules: in those of the layers that make the channels; also in those that these are children of; in those
            of all layers that make or take them, and the next around each that is not torch's own; there also the items of tuples and
            lists, and numbers that equal the size of an axis of which the channels are a part.
    """
    if where in ("around", "everywhere"):
        layers = {layer_of(part.name) for part in group.slices}
        owners = {owner for name in layers for owner in _owners(module, name)}
    else:
        owners = {layer_of(name) for name in group.layers}
        owners |= {name.rpartition(".")[0] for name in owners} if where == "parent" else set()
    found = tuple(
        size for owner in sorted(owners) for size in _sizes(module, owner, group, where == "everywhere")
    )
    return replace(group, sizes=found) if found else None


def _owners(module: nn.Module, layer: str) -> Iterator[str]:
    """Yields the module of a layer, and the next around it that is not torch's own."""
    yield layer
    while layer:
        layer = layer.rpartition(".")[0]
        if not _is_torchs(module.get_submodule(layer)):
            yield layer
            return


def _sizes(module: nn.Module, owner: str, group: Group, everywhere: bool) -> Iterator[SizeAttribute]:
    part = module.get_submodule(owner)
    if _is_torchs(part):
        return
    per_channel = {group.n_channels * k: k for k in {1, *(s.rows.shape[1] for s in group.slices)}}
    if everywhere:
        state = tensors_of(module)
        per_channel = {state[s.name].shape[s.axis]: s.rows.shape[1] for s in group.slices} | per_channel
    for name, value in vars(part).items():
        if type(value) is int and value in per_channel:
            yield SizeAttribute(owner, name, per_channel[value])
        elif everywhere and type(value) in (tuple, list):
            places = [at for at, item in enumerate(value) if type(item) is int and item in per_channel]
            yield from (SizeAttribute(owner, name, per_channel[value[at]], at) for at in places)


def _is_torchs(part: nn.Module) -> bool:
    return type(part).__module__.startswith("torch.")

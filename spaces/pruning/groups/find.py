"""Finds the groups of channels that can be cut."""

import copy
from typing import TYPE_CHECKING

from spaces.pruning.groups.group import Analysis, Group

if TYPE_CHECKING:
    from torch import nn


def channel_groups(module: "nn.Module", input_shape: tuple[int, ...]) -> tuple[Group, ...]:
    """Returns the groups of `analyse`."""
    return analyse(module, input_shape).groups


def analyse(module: "nn.Module", input_shape: tuple[int, ...]) -> Analysis:
    """Finds the groups of channels that can be cut. The channels of the network's outputs cannot.

    Every group is verified by trial cuts: on a copy with random weights some of its channels are cut, and the
    outputs must equal those of the whole network with the weights on these channels set to 0. A group that
    fails is left alone. Layers that normalize over channels (LayerNorm, GroupNorm) are compared without their
    statistics, which a cut changes.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: The network does not run on such an example.
    """
    from spaces.pruning.groups.assemble import assemble
    from spaces.pruning.groups.joint import variants
    from spaces.pruning.groups.trial_cuts import Trial, tried
    from spaces.pruning.tracing.trace import trace
    from spaces.recovery.training.determinism import fixed_threads

    with fixed_threads(1):  # for two examples, synchronising threads costs more than they save
        candidates, left_alone = assemble(module, trace(copy.deepcopy(module).eval(), input_shape))
        trial = Trial(module, input_shape)
        groups, failed = tried(trial, candidates)
        known: set[tuple[object, ...]] = set()
        for variant in variants(module):
            made = {_key(group): group for group in variant([g for g in candidates if g.name in failed])}
            if again := [group for key, group in made.items() if key not in known]:
                known.update(made)
                groups, _ = tried(trial, again, groups)
                cut = {name for group in groups for name in (group.name, *group.joined)}
                failed = {name: left for name, left in failed.items() if name not in cut}
    order = [group.name for group in candidates]
    groups = tuple(sorted(groups, key=lambda group: order.index(group.name)))
    return Analysis(groups, (*left_alone, *failed.values()))


def _key(group: Group) -> tuple[object, ...]:
    return group.name, group.sizes, group.joined, group.rescaled

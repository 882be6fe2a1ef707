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
    from spaces.pruning.groups.sizes import with_sizes
    from spaces.pruning.groups.trial_cuts import tried
    from spaces.pruning.tracing.trace import trace
    from spaces.recovery.training.determinism import fixed_threads

    with fixed_threads(1):  # for two examples, synchronising threads costs more than they save
        candidates, left_alone = assemble(module, trace(copy.deepcopy(module).eval(), input_shape))
        groups, failed = tried(module, input_shape, candidates)
        bad = {left.layers for left in failed}
        again = [
            found for g in candidates if g.layers in bad and (found := with_sizes(module, g)) is not None
        ]
        if again:
            more, _ = tried(module, input_shape, [*groups, *again])
            failed = tuple(left for left in failed if left.layers not in {g.layers for g in more})
            groups = tuple(sorted(more, key=lambda group: [g.name for g in candidates].index(group.name)))
    return Analysis(groups, (*left_alone, *failed))

"""Finds the groups of channels that can be cut, from torch-pruning's dependency graph."""

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
    fails is left alone.

    Args:
        module: The network; stays as it is.
        input_shape: Shape of one example.

    Raises:
        StageError: The network does not run on such an example, or torch-pruning cannot trace it.
    """
    from spaces.pruning.groups.assemble import assemble
    from spaces.pruning.groups.dependencies import dependencies
    from spaces.pruning.groups.trial_cuts import tried
    from spaces.recovery.training.determinism import fixed_threads

    with fixed_threads(1):  # for two examples, synchronising threads costs more than they save
        candidates, left_alone = assemble(module, dependencies(module, input_shape))
        groups, failed = tried(module, input_shape, candidates)
    return Analysis(groups, (*left_alone, *failed))

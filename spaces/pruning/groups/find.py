"""Which channels can be cut, and what goes with them: the dependency analysis is torch-pruning's."""

from typing import TYPE_CHECKING

from spaces.pruning.groups.group import Analysis, Group

if TYPE_CHECKING:
    from torch import nn


def channel_groups(module: "nn.Module", input_shape: tuple[int, ...]) -> tuple[Group, ...]:
    """Returns the groups of `analyse`."""
    return analyse(module, input_shape).groups


def analyse(module: "nn.Module", input_shape: tuple[int, ...]) -> Analysis:
    """Finds out which channels can be cut. Channels that the network's outputs consist of cannot.

    Every group is tried: on a copy with random weights some of its channels are cut, and the outputs must be those of
    the whole network once nothing takes these channels any more. A group that fails is left alone.

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

    with fixed_threads(1):  # for two examples, threads that wait for each other cost more than they give
        candidates, left_alone = assemble(module, dependencies(module, input_shape))
        groups, failed = tried(module, input_shape, candidates)
    return Analysis(groups, (*left_alone, *failed))

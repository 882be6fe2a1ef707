"""What makes channels of a network sparse while it trains."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from spaces.pruning.budgets.mac_shares import MacShares
from spaces.pruning.groups.group import Group
from spaces.pruning.sparsity.strength_schedules import strength_at
from spaces.recovery.losses.cross_entropy import CrossEntropy
from spaces.recovery.training.batch import Loss


@dataclass(frozen=True)
class Subject:
    """A network that is to become sparse.

    Attributes:
        module: The network, which is trained in place.
        groups: The channels that can be cut.
        shares: What they cost.
        inputs: A few examples, `(n, *input.shape)`.
    """

    module: nn.Module
    groups: tuple[Group, ...]
    shares: MacShares
    inputs: Tensor


@dataclass(frozen=True)
class Aim:
    """How sparse it is to become, and how hard it is pressed.

    Attributes:
        strength: Weight of the regularizer.
        schedule: How it goes over the training, see `strength_schedules.py`.
        level: Share of MACs that may stay.
        seed: Of everything random.
    """

    strength: float
    schedule: str = "constant"
    level: float = 1.0
    seed: int = 0

    def strength_at(self, step: int, n_steps: int) -> float:
        """Returns the strength at a step, from 0 on, of `n_steps`."""
        return strength_at(self.schedule, self.strength, step, n_steps)

    def level_at(self, progress: float, ramp: float) -> float:
        """Returns the share of MACs that may stay so far: from 1 down to `level` along a line.

        Args:
            progress: Share of the training that is done.
            ramp: Share of the training after which the level is reached.
        """
        return 1.0 - (1.0 - self.level) * min(1.0, progress / ramp)


class Sparsifier(ABC):
    """Takes part in one training of one network.

    ::

        __init__ ──> [after_backward, after_step] for every step ──> finish

    What it has to remember from step to step is in the network or in the loss, so that a training that was interrupted
    can go on.

    Attributes:
        name: The value of the knob `sparsify.method`.
        has_level: Whether a budget of MACs is kept to, so that the knob `level` matters.
    """

    name: ClassVar[str]
    has_level: ClassVar[bool]

    @abstractmethod
    def __init__(self, subject: Subject, aim: Aim) -> None:
        """Prepares the network.

        Raises:
            StageError: The method does not suit the network, or its aim cannot be reached; the message names the layer or
                the knob.
        """

    @property
    def loss(self) -> Loss:
        """The training loss."""
        return CrossEntropy()

    def after_backward(self, step: int, n_steps: int) -> None:  # noqa: B027 (not every method has something to do)
        """Changes gradients, between the backward pass and the step."""

    def after_step(self, step: int, n_steps: int) -> None:  # noqa: B027
        """Changes weights, after the step."""

    @abstractmethod
    def finish(self) -> dict[str, Tensor]:
        """Gives the network its original structure back, after the training; it is on the CPU, in eval mode.

        Returns:
            By name of the group, which channels are on, `(n_channels,)` bool; the others are zero, or nearly so.
        """

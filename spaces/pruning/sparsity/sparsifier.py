"""The interface of methods that make a network's channels sparse during a training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from spaces.pruning.budgets.mac_shares import MacShares
from spaces.pruning.groups.group import Group
from spaces.pruning.sparsity.strength_schedules import strength_at
from spaces.recovery.losses.label_loss import LabelLoss
from spaces.recovery.training.batch import Loss


@dataclass(frozen=True)
class Subject:
    """A network to be made sparse.

    Attributes:
        module: The network, which is trained in place.
        groups: The channels that can be cut.
        shares: The MACs as a function of these channels.
        inputs: A few examples, `(n, *input.shape)`.
    """

    module: nn.Module
    groups: tuple[Group, ...]
    shares: MacShares
    inputs: Tensor


@dataclass(frozen=True)
class Aim:
    """The target sparsity and the strength of the regularizer.

    Attributes:
        strength: Weight of the regularizer.
        schedule: Schedule of the strength over the training, see `strength_schedules.py`.
        level: Share of MACs that may remain.
        seed: Seed of all random numbers.
    """

    strength: float
    schedule: str = "constant"
    level: float = 1.0
    seed: int = 0

    def strength_at(self, step: int, n_steps: int) -> float:
        """Returns the strength at a step, counted from 0, of `n_steps`."""
        return strength_at(self.schedule, self.strength, step, n_steps)

    def level_at(self, progress: float, ramp: float) -> float:
        """Returns the share of MACs that may remain at present: it falls linearly from 1 to `level`.

        Args:
            progress: Share of the training that is done.
            ramp: Share of the training after which the level is reached.
        """
        return 1.0 - (1.0 - self.level) * min(1.0, progress / ramp)


class Sparsifier(ABC):
    """Takes part in one training of one network.

    ::

        __init__ ──> [after_backward, after_step] for every step ──> finish

    All state between steps is in the network or in the loss, so that an interrupted training can be resumed.

    Attributes:
        name: The value of the knob `sparsify.method`.
        has_level: Whether the method meets a budget of MACs, so that the knob `level` has an effect.
    """

    name: ClassVar[str]
    has_level: ClassVar[bool]

    @abstractmethod
    def __init__(self, subject: Subject, aim: Aim) -> None:
        """Prepares the network.

        Raises:
            StageError: The method is not applicable to the network, or the aim cannot be reached; the message
                names the layer or the knob.
        """

    @property
    def loss(self) -> Loss:
        """The training loss."""
        return LabelLoss()

    def after_backward(self, step: int, n_steps: int) -> None:  # noqa: B027 (not every method has something to do)
        """Changes gradients, between the backward pass and the step."""

    def after_step(self, step: int, n_steps: int) -> None:  # noqa: B027
        """Changes weights, after the step."""

    @abstractmethod
    def finish(self) -> dict[str, Tensor]:
        """Restores the network's structure after the training; the network is on the CPU, in eval mode.

        Returns:
            By name of the group, which channels are on, `(n_channels,)` bool; the others are zero, or nearly so.
        """

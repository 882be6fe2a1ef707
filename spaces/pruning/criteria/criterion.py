"""The interface of criteria: a criterion scores channels, and the least important ones are cut."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spaces.knob_spec import Technique, cited
from spaces.pruning.groups.group import Group
from spaces.stages.output_spec import FIRST_OUTPUT, OutputSpec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Evidence:
    """The data that a criterion may use. It must not modify them.

    Attributes:
        module: The network, in eval mode, on the CPU; gradients of its parameters are None before and after.
        groups: The channels to score.
        inputs: Examples `(n, *input.shape)` float32; empty if there are none.
        labels: `(n,)` int64; None if the examples have none.
        generator: Source of all random numbers.
        output: The output that a loss gets.
    """

    module: "torch.nn.Module"
    groups: Sequence[Group]
    inputs: "torch.Tensor"
    labels: "torch.Tensor | None"
    generator: "torch.Generator"
    output: OutputSpec = FIRST_OUTPUT


class Criterion(ABC):
    """Scores channels. `tests` inherit `CriterionConformance`.

    Attributes:
        name: The value of the knob `prune.criterion`.
        needs_inputs: Whether it uses examples.
        needs_labels: Whether it uses their labels.
    """

    name: ClassVar[str]
    needs_inputs: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    @property
    def technique(self) -> Technique:
        """What people choose it by."""
        needs = (*(("data",) if self.needs_inputs else ()), *(("labels",) if self.needs_labels else ()))
        cut = ("+space.prune.ratio=[0.25]",)
        return Technique(
            "pruning", needs, general=not self.needs_labels, paper=cited(type(self)), overrides=cut
        )

    @abstractmethod
    def scores(self, evidence: Evidence) -> "dict[str, torch.Tensor]":
        """Returns the importance of channels by group, `(n_channels,)` float64; higher is more important.

        The mean of each group\'s scores is 1, since one ranking goes over the channels of all groups.

        Raises:
            StageError: The criterion does not apply to a group, e.g. there is no BatchNorm; the message names
                the layer.
        """

    def config(self) -> dict[str, Any]:
        """Returns what decides the scores besides the code; it becomes part of cache keys. By default all attributes."""
        return dict(vars(self))

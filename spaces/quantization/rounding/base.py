"""The base class of methods that round the weights of a network's parts."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from spaces.knob_spec import WEIGHTS_ALONE, Technique, cited
from spaces.quantization.rounding.unit import Unit


@dataclass(frozen=True)
class Method(ABC):
    """A method of rounding.

    Attributes:
        steps: Steps of gradient descent for each part; methods without gradients ignore it.
    """

    steps: int = 300

    name: ClassVar[str]
    per_block: ClassVar[bool] = False
    """Whether parts are blocks, such as residual blocks; else layers."""
    learns_biases: ClassVar[bool] = False
    uses_steps: ClassVar[bool] = False

    @property
    def technique(self) -> Technique:
        """What people choose it by."""
        tuning: Literal["none", "light"] = "light" if self.uses_steps else "none"
        return Technique("quantization", ("data",), tuning, paper=cited(type(self)), places=WEIGHTS_ALONE)

    @property
    def key(self) -> tuple[object, ...]:
        """What the result depends on: the name and the fields."""
        options = [f.name for f in fields(self) if f.name != "steps" or self.uses_steps]
        return (self.name, *((name, getattr(self, name)) for name in options))

    @abstractmethod
    def solve(self, unit: Unit) -> None:
        """Replaces weights, grids, biases and grids of activations in `unit.quantized`."""

"""Learned rounding, layer by layer (AdaRound, arXiv 2004.10568): see `descent.py`."""

from dataclasses import dataclass
from typing import ClassVar

from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.descent import Descent
from spaces.quantization.rounding.unit import Unit


@dataclass(frozen=True)
class AdaRound(Method):
    """Fits each layer, with what follows it up to the next one."""

    name: ClassVar[str] = "adaround"
    learns_biases: ClassVar[bool] = True
    uses_steps: ClassVar[bool] = True

    def solve(self, unit: Unit) -> None:
        """Rounds one layer."""
        Descent(self.steps).solve(unit)

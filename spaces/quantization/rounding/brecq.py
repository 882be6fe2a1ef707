"""Block reconstruction: rounding, biases and step sizes of a whole block are learned together.

Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction" (arXiv 2102.05426): the layers of a residual
block compensate each other's errors. Unlike in the paper, errors of outputs are not weighted by squared gradients, which would need labels.
"""

from dataclasses import dataclass
from typing import ClassVar

from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.descent import Descent
from spaces.quantization.rounding.unit import Unit

ROUNDING_RATE = 0.01
SCALE_RATE = 0.003


@dataclass(frozen=True)
class Brecq(Method):
    """Fits each block."""

    name: ClassVar[str] = "brecq"
    per_block: ClassVar[bool] = True
    learns_biases: ClassVar[bool] = True
    uses_steps: ClassVar[bool] = True

    def solve(self, unit: Unit) -> None:
        """Rounds the layers of one block."""
        Descent(self.steps, ROUNDING_RATE, SCALE_RATE).solve(unit)

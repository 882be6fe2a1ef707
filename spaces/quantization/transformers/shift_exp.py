"""Shift-exp: powers of e of integers by shifts, additions and one division (ShiftExp of I-ViT, Li & Gu 2023, arXiv 2207.01405).

`exp(-s a) = 2^(-s p)` with `p = a + (a >> 1) - (a >> 4)`, since log2(e) is about 1.0111 in binary; `p = whole * one + rest` with `one = 1 / s`; and
`2^-(rest / one)` is about `1 - rest / (2 one)`. The result is at most 11 % too large: 6.2 % where
`rest / one` is about 0.56, and 0.4 % for each unit of `s a`.

Two things differ from the paper. Integers count down from the largest, so that all are 0 or more and a shift is a division. And they are first
shifted so that `one` has 11 bits: with a scale of 8 bits, 1 / s is a number as small as 10, whose rounding changes the base of the power by 10 %.
"""

import math
from dataclasses import dataclass

ONE_BITS = 11  # of `one`
EXP_BITS = 16  # of the result, whose largest value is `one << 5`
SMALLEST = EXP_BITS * math.log(2)
"""exp(-x) of this and all above is 0."""

BODY = """
<domain: "{domain}", opset_import: ["": {opset}]>
ShiftExp (a, one) => (e)
{{
  two = Constant <value_int: int = 2> ()
  sixteen = Constant <value_int: int = 16> ()
  upper = Constant <value_int: int = 32> ()
  most = Constant <value_int: int = 17> ()
  half = Div (a, two)
  sixteenth = Div (a, sixteen)
  sum = Add (a, half)
  p = Sub (sum, sixteenth)
  whole = Div (p, one)
  wholes = Mul (whole, one)
  rest = Sub (p, wholes)
  half_rest = Div (rest, two)
  line = Sub (one, half_rest)
  wide = Mul (line, upper)
  n = Min (whole, most)
  bits = Cast <to: int = 13> (wide)
  by = Cast <to: int = 13> (n)
  shifted = BitShift <direction: string = "RIGHT"> (bits, by)
  e = Cast <to: int = 7> (shifted)
}}
"""


@dataclass(frozen=True)
class Unit:
    """Factors that bring integers of a scale to the resolution of shift-exp.

    Attributes:
        one: What stands for 1.0, from 1024 to 2048.
        up: Power of two that integers are multiplied by.
        down: Power of two that they are divided by.
    """

    one: int
    up: int
    down: int

    @staticmethod
    def of(scale: float) -> "Unit":
        """Returns the factors for integers of this scale, above 0."""
        shift = math.ceil(math.log2(scale * 2 ** (ONE_BITS - 1)))
        return Unit(round(2.0**shift / scale), 2 ** max(shift, 0), 2 ** max(-shift, 0))

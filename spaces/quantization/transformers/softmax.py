"""Shiftmax: Softmax with shift-exp and an integer division (I-ViT, arXiv 2207.01405).

`q = round((x - low) / scale)` in 8 bits, `e = exp(scale (q - max q))` in 16, `y = 2^15 e / sum(e)` in integers, and the result is `y / 2^15`.
It differs from Softmax of the rounded input by at most 11 % of `y (1 - y)` and small roundings.
"""

from spaces.quantization.transformers.shift_exp import SMALLEST, Unit

STEPS = 255  # of the input
OUTPUT_BITS = 15  # after the point

BODY = """
<domain: "{domain}", opset_import: ["": {opset}, "{domain}": 1]>
Softmax <axes, low, scale, one, up, down> (x) => (y)
{{
  low = Constant <value_float: float = @low> ()
  scale = Constant <value_float: float = @scale> ()
  first = Constant <value_float: float = 0.0> ()
  last = Constant <value_float: float = 255.0> ()
  one = Constant <value_int: int = @one> ()
  up = Constant <value_int: int = @up> ()
  down = Constant <value_int: int = @down> ()
  full = Constant <value_int: int = 32768> ()
  step = Constant <value_float: float = 0.000030517578125> ()
  axes = Constant <value_ints: ints = @axes> ()
  above = Sub (x, low)
  steps = Div (above, scale)
  nearest = Round (steps)
  clipped = Clip (nearest, first, last)
  q = Cast <to: int = 7> (clipped)
  most = ReduceMax <keepdims: int = 1{axes_before_18}> (q{axes_since_18})
  behind = Sub (most, q)
  raised = Mul (behind, up)
  a = Div (raised, down)
  e = {domain}.ShiftExp (a, one)
  sum = ReduceSum <keepdims: int = 1> (e, axes)
  wide = Mul (e, full)
  share = Div (wide, sum)
  shares = Cast <to: int = 1> (share)
  y = Mul (shares, step)
}}
"""


def grid(low: float, high: float, least_maximum: float) -> tuple[float, float]:
    """Returns start and step of the input's grid.

    Args:
        low: Smallest value.
        high: Largest value.
        least_maximum: Smallest of the largest values along the axis. Values so far below it that their power is 0, such as a mask's,
            need no step of their own: the first one stands for all of them.
    """
    start = max(low, least_maximum - SMALLEST)
    return start, max((high - start) / STEPS, 2.0**-20)


def attributes(start: float, scale: float, axes: tuple[int, ...]) -> dict[str, object]:
    """Returns the attributes of the node."""
    return {"axes": list(axes), "low": start, "scale": scale, **vars(Unit.of(scale))}

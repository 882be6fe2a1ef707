"""ShiftGELU: `x sigmoid(1.702 x)` with shift-exp (I-ViT, arXiv 2207.01405).

`q = round(x / scale)` in 8 bits; 1.702 is about 1.1011 in binary: `p = q + (q >> 1) + (q >> 3) + (q >> 4)`; the sigmoid is `exp(p - m) / (exp(p - m) + exp(-m))`. The paper's m is
the largest p of a row; here it is `max(p, 0)`, so that a value's result does not depend on its neighbours and no power is above 1.

A limit clips x to `[-limit, limit]`, so that a long tail does not widen the steps of all values (lambda-ShiftGELU of I-Segmenter, whose exact form is
not public: this is the plain reading of its abstract).
"""

from spaces.quantization.transformers.shift_exp import Unit

STEPS = 255  # of the input

BODY = """
<domain: "{domain}", opset_import: ["": {opset}, "{domain}": 1]>
Gelu <first, last, scale, step, one, up, down> (x) => (y)
{{
  scale = Constant <value_float: float = @scale> ()
  step = Constant <value_float: float = @step> ()
  first = Constant <value_float: float = @first> ()
  last = Constant <value_float: float = @last> ()
  one = Constant <value_int: int = @one> ()
  up = Constant <value_int: int = @up> ()
  down = Constant <value_int: int = @down> ()
  zero = Constant <value_int: int = 0> ()
  two = Constant <value_int: int = 2> ()
  eight = Constant <value_int: int = 8> ()
  sixteen = Constant <value_int: int = 16> ()
  full = Constant <value_int: int = 32768> ()
  steps = Div (x, scale)
  nearest = Round (steps)
  clipped = Clip (nearest, first, last)
  q = Cast <to: int = 7> (clipped)
  size = Abs (q)
  raised = Mul (size, up)
  a = Div (raised, down)
  half = Div (a, two)
  eighth = Div (a, eight)
  sixteenth = Div (a, sixteen)
  sum = Add (a, half)
  more = Add (sum, eighth)
  p = Add (more, sixteenth)
  e = {domain}.ShiftExp (p, one)
  origin = Sub (one, one)
  unit = {domain}.ShiftExp (origin, one)
  both = Add (e, unit)
  negative = Less (q, zero)
  upper = Where (negative, e, unit)
  wide = Mul (upper, full)
  sigmoid = Div (wide, both)
  product = Mul (q, sigmoid)
  products = Cast <to: int = 1> (product)
  y = Mul (products, step)
}}
"""


def attributes(low: float, high: float, limit: float) -> dict[str, object]:
    """Returns the attributes of the node.

    Args:
        low: Smallest input.
        high: Largest input.
        limit: Largest magnitude that is told from others; 0 for none.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if limit:
        low, high = max(low, -limit), min(high, limit)
    scale = max((high - low) / STEPS, 2.0**-20)
    first = round(low / scale)
    steps = {"first": float(first), "last": float(first + STEPS)}
    return {**steps, "scale": scale, "step": scale / 2**15, **vars(Unit.of(scale))}

"""Integer layer normalization: the standard deviation by Newton's method (I-BERT, Kim et al. 2021, arXiv 2101.01321, algorithm 4; I-LayerNorm of I-ViT, arXiv 2207.01405).

`q = round((x - low) / scale)` in 16 bits, `d = q - mean(q)`, `v = sum(d^2) + n epsilon / scale^2`, `s = floor(sqrt(v))`, and `y = d 2^15 / s`, so that `(x - mean) / std` is `y sqrt(n) / 2^15`. Factors are
integers of 16 bits, and biases of 32 on the scale of their product with y: the root of n is in that scale. Sums of squares have up to 48 bits, as
accumulators for squares of 16-bit values need; all other integers fit 32.

Newton's method starts at the power of two above the root, at most twice the root, so that six steps reach the floor of every root below 2^25.
"""

import math

import numpy as np
from numpy.typing import NDArray

STEPS = 65535  # of the input
OUTPUT_BITS = 15  # after the point, of the normalized values before they are multiplied by the root of n
MOST_WEIGHT = 32767
LARGEST_SUM = 2**48
NEWTON_STEPS = 6

_NEWTON = """
  quotient_{i} = Div (v, root_{before})
  double_{i} = Add (root_{before}, quotient_{i})
  root_{i} = Div (double_{i}, two)"""

BODY = (
    """
<domain: "{domain}", opset_import: ["": {opset}]>
LayerNormalization <axes, size, epsilon, low, scale, step> (x, weight, bias) => (y)
{{
  low = Constant <value_float: float = @low> ()
  scale = Constant <value_float: float = @scale> ()
  first = Constant <value_float: float = 0.0> ()
  last = Constant <value_float: float = 65535.0> ()
  step = Constant <value_float: float = @step> ()
  size = Constant <value_int: int = @size> ()
  epsilon = Constant <value_int: int = @epsilon> ()
  axes = Constant <value_ints: ints = @axes> ()
  one = Constant <value_int: int = 1> ()
  two = Constant <value_int: int = 2> ()
  inner = Constant <value_int: int = 32768> ()
  outer = Constant <value_int: int = 1073741824> ()
  powers = Constant <value_ints: ints = [{powers}]> ()
  behind = Constant <value_ints: ints = [-1]> ()
  above = Sub (x, low)
  steps = Div (above, scale)
  nearest = Round (steps)
  clipped = Clip (nearest, first, last)
  q = Cast <to: int = 7> (clipped)
  total = ReduceSum <keepdims: int = 1> (q, axes)
  twice_total = Mul (total, two)
  rounding = Add (twice_total, size)
  twice_size = Mul (size, two)
  mean = Div (rounding, twice_size)
  d = Sub (q, mean)
  square = Mul (d, d)
  squares = ReduceSum <keepdims: int = 1> (square, axes)
  sum = Add (squares, epsilon)
  v = Max (sum, one)
  column = Unsqueeze (v, behind)
  reached = GreaterOrEqual (column, powers)
  reached_int = Cast <to: int = 7> (reached)
  length = ReduceSum <keepdims: int = 0> (reached_int, behind)
  bits = Cast <to: int = 13> (one)
  by = Cast <to: int = 13> (length)
  start = BitShift <direction: string = "LEFT"> (bits, by)
  root_0 = Cast <to: int = 7> (start){newton}
  root = Min (root_{before_last}, root_{last})
  factor = Div (outer, root)
  product = Mul (d, factor)
  normalized = Div (product, inner)
  weights = Cast <to: int = 7> (weight)
  biases = Cast <to: int = 7> (bias)
  scaled = Mul (normalized, weights)
  shifted = Add (scaled, biases)
  sums = Cast <to: int = 1> (shifted)
  y = Mul (sums, step)
}}
""".replace("{newton}", "".join(_NEWTON.format(i=i, before=i - 1) for i in range(1, NEWTON_STEPS + 1)))
    .replace("{powers}", ", ".join(str(4**i) for i in range(25)))
    .replace("{before_last}", str(NEWTON_STEPS - 1))
    .replace("{last}", str(NEWTON_STEPS))
)


def attributes(
    low: float, high: float, axes: tuple[int, ...], size: int, epsilon: float
) -> dict[str, object]:
    """Returns the attributes of the node, except `step`.

    Args:
        low: Smallest input.
        high: Largest input.
        axes: Axes that are normalized.
        size: Number of values that are normalized together.
        epsilon: What is added to the variance.
    """
    scale = max((high - low) / STEPS, 2.0**-40)
    added = min(round(size * epsilon / scale**2), LARGEST_SUM)
    return {"axes": list(axes), "size": size, "epsilon": added, "low": low, "scale": scale}


def parameters(
    weight: NDArray[np.float32], bias: NDArray[np.float32], size: int
) -> tuple[NDArray[np.int16], NDArray[np.int32], float]:
    """Returns the factors and biases as integers, and the scale of the result.

    Args:
        weight: The factors.
        bias: The biases.
        size: Number of values that are normalized together.
    """
    unit = math.sqrt(size) / 2**OUTPUT_BITS
    of_weight = float(np.abs(weight).max(initial=0)) / MOST_WEIGHT
    of_bias = float(np.abs(bias).max(initial=0)) / (unit * 2**30)
    scale = max(of_weight, of_bias, 2.0**-40)
    weights = np.round(weight.astype(np.float64) / scale).astype(np.int16)
    return weights, np.round(bias.astype(np.float64) / (scale * unit)).astype(np.int32), scale * unit

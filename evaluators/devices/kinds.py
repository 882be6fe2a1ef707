"""Kernel classes: what decides how fast a kernel runs, besides its size."""

from typing import Literal, get_args

# `attention` multiplies activations with each other, `movement` only moves bytes (Concat, Transpose, Pad, ...),
# `normalization` also holds softmax, `quantize` is a QuantizeLinear or DequantizeLinear that no neighbour absorbs.
Kind = Literal[
    "conv",
    "pointwise",
    "depthwise",
    "fully_connected",
    "attention",
    "recurrent",
    "pool",
    "elementwise",
    "normalization",
    "movement",
    "quantize",
    "other",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

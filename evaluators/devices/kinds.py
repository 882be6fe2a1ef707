"""Kernel classes: kernels of one class share throughput and overhead figures in a device profile."""

from typing import Literal, get_args

# `attention` multiplies activations with each other, `movement` only copies bytes (Concat, Transpose, Pad,
# ...), `normalization` includes softmax, `quantize` is a QuantizeLinear or DequantizeLinear that is not
# fused.
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

"""Resources and speed of a quantized network as a dataflow pipeline on an FPGA: one engine a layer, all weights on chip.

A layer is a matrix of `mh` rows by `mw` columns that meets one input vector for each output pixel. Its engine computes
`pe` rows by `simd` columns a cycle. Formulas: Blott et al. 2018, "FINN-R: An end-to-end deep-learning framework for
fast exploration of quantized neural networks", ACM TRETS 11(3), with the constants of its implementation.
"""

import math
from dataclasses import dataclass
from typing import Literal

from evaluators.devices.arguments import positive, share, whole
from spaces.errors import ConfigError, EvaluationError

Multiplier = Literal["lut", "dsp"]

# Widest factor, to the products of one DSP48 slice. 8: Fu et al. 2016, Xilinx WP486; 4: Xilinx WP521; both share one
# factor, so the packed products belong to neighbouring rows. One slice multiplies 27 by 18 bits (UG579).
DSP_PRODUCTS: tuple[tuple[int, int], ...] = ((4, 4), (8, 2))
_DSP_WIDE, _DSP_NARROW = 27, 18

_ENGINE_LUTS, _LUT_FACTOR = 300, 1.1  # fitted to synthesised engines in FINN-R
_LUTRAM_DEPTH = 64
# Depth and width that one 18-kilobit block RAM offers, narrowest first (UG573, table 1-10).
_BRAM_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))


@dataclass(frozen=True)
class FpgaLayer:
    """One layer with weights. A depthwise convolution has `mw` = kernel positions, a grouped one its group's inputs.

    Attributes:
        name: Name for messages.
        mh: Output channels.
        mw: Weights that one output needs: input channels a group times kernel positions.
        output_pixels: Output positions a frame; 1 for a fully connected layer.
        weight_bits: Width of a weight.
        activation_bits: Width of an input.
        output_bits: Width of outputs that are made by comparing with 2^b - 1 thresholds in the fabric; None where the
            output is scaled elsewhere. Thresholds double with every bit, so they suit up to 4 bits.
        signed_activations: Whether inputs have a sign.
    """

    name: str
    mh: int
    mw: int
    output_pixels: int
    weight_bits: int
    activation_bits: int
    output_bits: int | None = None
    signed_activations: bool = False

    def __post_init__(self) -> None:
        for key in ("mh", "mw", "output_pixels", "weight_bits", "activation_bits"):
            whole(getattr(self, key), f"layer {self.name}: {key}", 1)
        if self.output_bits is not None:
            whole(self.output_bits, f"layer {self.name}: output_bits", 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates a frame."""
        return self.mh * self.mw * self.output_pixels


@dataclass(frozen=True)
class FpgaDevice:
    """What an FPGA offers, and the share of it that designs can use and still meet their clock.

    The shares are those that FINN plans with.

    Attributes:
        luts: Look-up tables.
        dsps: DSP48 slices.
        brams: 18-kilobit block RAMs (twice the number of 36-kilobit ones).
        clock_hz: Clock of the engines.
        lut_fraction: Usable share of `luts`.
        dsp_fraction: Usable share of `dsps`.
        bram_fraction: Usable share of `brams`.
    """

    luts: int
    dsps: int
    brams: int
    clock_hz: float
    lut_fraction: float = 0.7
    dsp_fraction: float = 0.8
    bram_fraction: float = 0.8

    def __post_init__(self) -> None:
        whole(self.luts, "luts", 1, ConfigError)
        whole(self.dsps, "dsps", 0, ConfigError)
        whole(self.brams, "brams", 0, ConfigError)
        positive(self.clock_hz, "clock_hz", ConfigError)
        for key in ("lut_fraction", "dsp_fraction", "bram_fraction"):
            share(getattr(self, key), key, ConfigError)

    @property
    def usable(self) -> tuple[float, float, float]:
        """Usable look-up tables, DSP slices and block RAMs."""
        return self.luts * self.lut_fraction, self.dsps * self.dsp_fraction, self.brams * self.bram_fraction


def multiplier_luts(weight_bits: int, activation_bits: int) -> int:
    """Look-up tables of one multiplier in the fabric.

    Raises:
        EvaluationError: A width below 1.
    """
    width = whole(weight_bits, "weight_bits", 1) + whole(activation_bits, "activation_bits", 1)
    return (2 * math.ceil(width / 6) - 1) * width


def products_per_dsp(weight_bits: int, activation_bits: int) -> float:
    """Products that one DSP48 slice computes a cycle: 4, 2, 1, or a fraction where one product needs several slices.

    Raises:
        EvaluationError: A width below 1.
    """
    wide = max(whole(weight_bits, "weight_bits", 1), whole(activation_bits, "activation_bits", 1))
    narrow = min(weight_bits, activation_bits)
    for widest, products in DSP_PRODUCTS:
        if wide <= widest:
            return float(products)
    return 1 / (math.ceil(wide / _DSP_WIDE) * math.ceil(narrow / _DSP_NARROW))


def accumulator_bits(layer: FpgaLayer) -> int:
    """Width that no sum of the layer can overflow (Colbert et al. 2023, arXiv 2301.13376, data-type bound)."""
    alpha = math.log2(layer.mw) + layer.weight_bits + layer.activation_bits - 1 - layer.signed_activations
    return math.ceil(alpha + math.log2(1 + 2**-alpha) + 1)


def engine_luts(layer: FpgaLayer, pe: int, simd: int, multiplier: Multiplier = "lut") -> int:
    """Look-up tables of an engine: products, adder tree, accumulators and thresholds; weights are not included.

    Raises:
        EvaluationError: `pe` does not divide `mh`, or `simd` does not divide `mw`.
    """
    _check_folding(layer, pe, simd)
    width = layer.weight_bits + layer.activation_bits
    products = simd * multiplier_luts(layer.weight_bits, layer.activation_bits) if multiplier == "lut" else 0
    tree = width * (2 * simd - 1)
    total = accumulator_bits(layer)
    levels = 0 if layer.output_bits is None else 2**layer.output_bits - 1
    thresholds = levels * total * (math.ceil(layer.mh / pe / _LUTRAM_DEPTH) + 1)
    return int(_ENGINE_LUTS + _LUT_FACTOR * pe * (products + tree + total + thresholds))


def engine_dsps(layer: FpgaLayer, pe: int, simd: int, packed: bool = True) -> int:
    """DSP slices of an engine whose products are computed in them.

    Args:
        layer: The layer.
        pe: Rows a cycle.
        simd: Columns a cycle.
        packed: Whether a slice computes several narrow products of neighbouring rows; else FINN's
            `pe * simd * ceil((weight_bits + activation_bits) / 48)`.

    Raises:
        EvaluationError: `pe` does not divide `mh`, or `simd` does not divide `mw`.
    """
    _check_folding(layer, pe, simd)
    if not packed:
        return pe * simd * math.ceil((layer.weight_bits + layer.activation_bits) / 48)
    return simd * math.ceil(pe / products_per_dsp(layer.weight_bits, layer.activation_bits))


def weight_memory_luts(layer: FpgaLayer, products: int) -> int:
    """Look-up tables that hold the layer's weights, `products` of which are read a cycle.

    Raises:
        EvaluationError: `products` is not a whole number from 1 up.
    """
    depth = math.ceil(layer.mh * layer.mw / whole(products, "products", 1))
    return products * layer.weight_bits * math.ceil(depth / _LUTRAM_DEPTH)


def weight_memory_brams(layer: FpgaLayer, products: int) -> int:
    """Block RAMs (18 kilobit) that hold the layer's weights, `products` of which are read a cycle; the best shape.

    Raises:
        EvaluationError: `products` is not a whole number from 1 up.
    """
    width = whole(products, "products", 1) * layer.weight_bits
    depth = math.ceil(layer.mh * layer.mw / products)
    return min(math.ceil(depth / d) * math.ceil(width / w) for d, w in _BRAM_SHAPES)


def engine_cycles(layer: FpgaLayer, pe: int, simd: int) -> int:
    """Cycles a frame: (mh / pe) (mw / simd) output pixels.

    Raises:
        EvaluationError: `pe` does not divide `mh`, or `simd` does not divide `mw`.
    """
    _check_folding(layer, pe, simd)
    return (layer.mh // pe) * (layer.mw // simd) * layer.output_pixels


def _check_folding(layer: FpgaLayer, pe: int, simd: int) -> None:
    for key, value, name, size in (("pe", pe, "mh", layer.mh), ("simd", simd, "mw", layer.mw)):
        if size % whole(value, key, 1):
            raise EvaluationError(f"{key}: {value} does not divide {name}={size} of layer {layer.name}")

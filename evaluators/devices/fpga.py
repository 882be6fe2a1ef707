"""Resources and speed of a quantized network as a dataflow pipeline with on-chip weights on an FPGA.

A layer is a matrix of `mh` rows by `mw` columns that is multiplied with one input vector per output pixel.
Its engine computes `pe` rows by `simd` columns per cycle. Formulas: Blott et al. 2018, "FINN-R: An end-to-end
deep-learning framework for fast exploration of quantized neural networks", ACM TRETS 11(3), with the
constants of its implementation.
"""

import math
from dataclasses import dataclass
from typing import Literal

from evaluators.devices.arguments import positive, share, whole
from spaces.errors import ConfigError, EvaluationError

Multiplier = Literal["lut", "dsp"]

# (width of the wider factor, products per DSP48 slice and cycle). 8 bits: Fu et al. 2016, Xilinx WP486; 4
# bits: Xilinx WP521. Packed products share one factor, so they belong to neighbouring rows. One slice
# multiplies 27 by 18 bits (UG579).
DSP_PRODUCTS: tuple[tuple[int, int], ...] = ((4, 4), (8, 2))
_DSP_WIDE, _DSP_NARROW = 27, 18

_ENGINE_LUTS, _LUT_FACTOR = 300, 1.1  # fitted to synthesised engines in FINN-R
_LUTRAM_DEPTH = 64
# (depth, width) configurations of one 18-kilobit block RAM, narrowest first (UG573, table 1-10).
_BRAM_SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))


@dataclass(frozen=True)
class FpgaLayer:
    """One layer with weights.

    Attributes:
        name: Name in error messages.
        mh: Output channels.
        mw: Weights per output: input channels per group times kernel positions.
        output_pixels: Output positions per frame; 1 for a fully connected layer.
        weight_bits: Bit width of a weight.
        activation_bits: Bit width of an input.
        output_bits: Bit width b of outputs that are quantized by comparison with 2^b - 1 thresholds in the
            fabric; None if outputs are requantized elsewhere. Thresholds double with every bit, so they are
            practical up to 4 bits.
        signed_activations: Whether inputs are signed.
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
        """Multiply-accumulates per frame."""
        return self.mh * self.mw * self.output_pixels


@dataclass(frozen=True)
class FpgaDevice:
    """Resources of an FPGA, and the fractions of them that a design can use and still meet its clock.

    The default fractions are those of FINN.

    Attributes:
        luts: Look-up tables.
        dsps: DSP48 slices.
        brams: 18-kilobit block RAMs (twice the number of 36-kilobit ones).
        clock_hz: Clock of the engines.
        lut_fraction: Usable fraction of `luts`.
        dsp_fraction: Usable fraction of `dsps`.
        bram_fraction: Usable fraction of `brams`.
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
    """Returns the look-up tables of one multiplier in the fabric.

    Raises:
        EvaluationError: A width below 1.
    """
    width = whole(weight_bits, "weight_bits", 1) + whole(activation_bits, "activation_bits", 1)
    return (2 * math.ceil(width / 6) - 1) * width


def products_per_dsp(weight_bits: int, activation_bits: int) -> float:
    """Returns the products per DSP48 slice and cycle; below 1 if one product takes several slices.

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
    """Returns the width that never overflows (Colbert et al. 2023, arXiv 2301.13376, data-type bound)."""
    alpha = math.log2(layer.mw) + layer.weight_bits + layer.activation_bits - 1 - layer.signed_activations
    return math.ceil(alpha + math.log2(1 + 2**-alpha) + 1)


def engine_luts(layer: FpgaLayer, pe: int, simd: int, multiplier: Multiplier = "lut") -> int:
    """Returns the look-up tables of an engine without weights: products, sums and thresholds.

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
    """Returns the DSP slices of an engine with DSP multipliers.

    Args:
        layer: The layer.
        pe: Rows per cycle.
        simd: Columns per cycle.
        packed: Whether a slice computes several narrow products of neighbouring rows; if not, FINN's formula
            holds: `pe * simd * ceil((weight_bits + activation_bits) / 48)`.

    Raises:
        EvaluationError: `pe` does not divide `mh`, or `simd` does not divide `mw`.
    """
    _check_folding(layer, pe, simd)
    if not packed:
        return pe * simd * math.ceil((layer.weight_bits + layer.activation_bits) / 48)
    return simd * math.ceil(pe / products_per_dsp(layer.weight_bits, layer.activation_bits))


def weight_memory_luts(layer: FpgaLayer, products: int) -> int:
    """Returns the look-up tables that store the layer's weights if `products` of them are read per cycle.

    Raises:
        EvaluationError: `products` is not a whole number from 1 up.
    """
    depth = math.ceil(layer.mh * layer.mw / whole(products, "products", 1))
    return products * layer.weight_bits * math.ceil(depth / _LUTRAM_DEPTH)


def weight_memory_brams(layer: FpgaLayer, products: int) -> int:
    """Returns the 18-kilobit block RAMs, in their best configuration, that store the layer's weights.

    Raises:
        EvaluationError: `products` is not a whole number from 1 up.
    """
    width = whole(products, "products", 1) * layer.weight_bits
    depth = math.ceil(layer.mh * layer.mw / products)
    return min(math.ceil(depth / d) * math.ceil(width / w) for d, w in _BRAM_SHAPES)


def engine_cycles(layer: FpgaLayer, pe: int, simd: int) -> int:
    """Returns the cycles per frame: (mh / pe) x (mw / simd) x output pixels.

    Raises:
        EvaluationError: `pe` does not divide `mh`, or `simd` does not divide `mw`.
    """
    _check_folding(layer, pe, simd)
    return (layer.mh // pe) * (layer.mw // simd) * layer.output_pixels


def _check_folding(layer: FpgaLayer, pe: int, simd: int) -> None:
    for key, value, name, size in (("pe", pe, "mh", layer.mh), ("simd", simd, "mw", layer.mw)):
        if size % whole(value, key, 1):
            raise EvaluationError(f"{key}: {value} does not divide {name}={size} of layer {layer.name}")

"""Energy of single operations and memory accesses by bit width, in a 45 nm process at 0.9 V.

Measured energies: Horowitz 2014, "Computing's energy problem (and what we can do about it)", ISSCC, figure
1.1.9. Interpolation between bit widths: Coelho et al. 2021, "Automatic heterogeneous quantization of deep
neural networks for low-latency inference on the edge" (QKeras), Nature Machine Intelligence 3. Shifts: You et
al. 2024, "ShiftAddLLM", NeurIPS, unit energies.

These figures rank designs of dedicated hardware. On a microcontroller instruction handling takes 100 to
10,000 times as much energy as the arithmetic, so energy is modelled as power times time there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluators.devices.arguments import number, positive, whole
from spaces.errors import EvaluationError, unknown_name

FloatDType = Literal["float16", "float32"]

# Horowitz 2014: pJ per operation.
FLOAT_MULTIPLY_PJ: Mapping[str, float] = {"float16": 1.1, "float32": 3.7}
FLOAT_ADD_PJ: Mapping[str, float] = {"float16": 0.4, "float32": 0.9}
# ShiftAddLLM: a shift of a float adds to its exponent.
FLOAT_SHIFT_PJ: Mapping[str, float] = {"float16": 0.15, "float32": 0.1}

# QKeras: pJ = quadratic * b^2 + linear * b for a product, ADD * b for a sum.
_MULTIPLY_QUADRATIC, _MULTIPLY_LINEAR = 0.002994791667, 0.001041666667
_ADD = 0.003125
# QKeras: pJ per bit of an access to an SRAM of 2^x bits, polynomial in x, highest power first.
_SRAM = (9.02427321e-4, -2.68847858e-2, 0.208900804, 0.0)
_SMALLEST_SRAM_BYTES = 8 * 1024  # Horowitz's smallest; below it the cubic would rise again
DRAM_PJ_PER_BIT = 1300 / 64  # Horowitz: 1300 to 2600 pJ for 64 bits


def multiply_pj(weight_bits: float, activation_bits: float | None = None) -> float:
    """Energy of one integer product in pJ.

    QKeras's polynomial in b holds for factors of equal width b. For unequal widths b^2 is replaced by the
    number of partial products (weight bits times activation bits) and b by the mean width, which agrees for
    equal widths.

    Args:
        weight_bits: Width of one factor in bits, at least 1.
        activation_bits: Width of the other factor; None means the same.

    Raises:
        EvaluationError: A width below 1.
    """
    first = number(weight_bits, "weight_bits", 1)
    second = first if activation_bits is None else number(activation_bits, "activation_bits", 1)
    return _MULTIPLY_QUADRATIC * first * second + _MULTIPLY_LINEAR * (first + second) / 2


def add_pj(bits: float) -> float:
    """Energy of one integer sum in pJ (QKeras).

    Raises:
        EvaluationError: A width below 1.
    """
    return _ADD * number(bits, "bits", 1)


def shift_pj(bits: float) -> float:
    """Energy of one integer shift in pJ: that of a sum of the same width, as in QKeras.

    Raises:
        EvaluationError: A width below 1.
    """
    return add_pj(bits)


def sram_pj_per_bit(memory_bytes: float) -> float:
    """Energy of reading or writing one bit of an SRAM, in pJ (QKeras); sizes below 8 KiB cost as 8 KiB.

    Raises:
        EvaluationError: A size that is not above 0.
    """
    x = math.log2(8 * max(positive(memory_bytes, "memory_bytes"), _SMALLEST_SRAM_BYTES))
    return ((_SRAM[0] * x + _SRAM[1]) * x + _SRAM[2]) * x + _SRAM[3]


def shift_add_product_pj(terms: int, activation_bits: float, weight_bits: float) -> float:
    """Energy of one integer product by a weight that is a sum of `terms` powers of two, in pJ.

    `terms` shifts of the activation and `terms - 1` sums as wide as the product (Dai et al. 2024, "Trainable
    Fixed-Point Quantization for Deep Learning Acceleration on FPGAs", K-hot weights).

    Raises:
        EvaluationError: `terms` is not a whole number from 1 up, or a width below 1.
    """
    n_shifts = whole(terms, "terms", 1)
    width = number(weight_bits, "weight_bits", 1) + number(activation_bits, "activation_bits", 1)
    return n_shifts * shift_pj(activation_bits) + (n_shifts - 1) * add_pj(width)


def mac_pj(
    weight_bits: float,
    activation_bits: float,
    accumulator_bits: float = 32,
    float_dtype: FloatDType | None = None,
    shift_terms: int | None = None,
) -> float:
    """Energy of one multiply-accumulate in pJ.

    Args:
        weight_bits: Width of a weight; not used for floats.
        activation_bits: Width of an activation; not used for floats.
        accumulator_bits: Width of the accumulator; float16 products are summed in float32 if it is above 16.
        float_dtype: Floating-point dtype of the arithmetic; None means integers.
        shift_terms: Number of powers of two that a weight is the sum of, where shifts and sums replace the
            product; None means an ordinary product.

    Raises:
        EvaluationError: A width below 1, an unknown dtype, or `shift_terms` below 1.
    """
    number(accumulator_bits, "accumulator_bits", 1)
    if float_dtype is not None:
        return _float_mac_pj(float_dtype, accumulator_bits, shift_terms)
    if shift_terms is None:
        product = multiply_pj(weight_bits, activation_bits)
    else:
        product = shift_add_product_pj(shift_terms, activation_bits, weight_bits)
    return product + add_pj(accumulator_bits)


def _float_mac_pj(dtype: str, accumulator_bits: float, shift_terms: int | None) -> float:
    if dtype not in FLOAT_MULTIPLY_PJ:
        raise EvaluationError(unknown_name("dtype", dtype, FLOAT_MULTIPLY_PJ, "float_dtype"))
    total = FLOAT_ADD_PJ["float32" if accumulator_bits > 16 else dtype]
    if shift_terms is None:
        return FLOAT_MULTIPLY_PJ[dtype] + total
    n_shifts = whole(shift_terms, "shift_terms", 1)
    return n_shifts * FLOAT_SHIFT_PJ[dtype] + (n_shifts - 1) * FLOAT_ADD_PJ[dtype] + total


@dataclass(frozen=True)
class KernelEnergy:
    """Energy of one kernel in pJ: arithmetic, accesses to on-chip memory, accesses to DRAM."""

    compute_pj: float
    on_chip_pj: float
    dram_pj: float

    @property
    def total_pj(self) -> float:
        """Sum of the three parts."""
        return self.compute_pj + self.on_chip_pj + self.dram_pj


def kernel_energy_pj(
    n_macs: float,
    weight_bits: float = 8,
    activation_bits: float = 8,
    accumulator_bits: float = 32,
    *,
    float_dtype: FloatDType | None = None,
    shift_terms: int | None = None,
    on_chip_bytes: float = 0.0,
    on_chip_memory_bytes: float | None = None,
    dram_bytes: float = 0.0,
) -> KernelEnergy:
    """Energy of one kernel: its multiply-accumulates and every byte that it reads and writes.

    Args:
        n_macs: Multiply-accumulates.
        weight_bits: Width of a weight.
        activation_bits: Width of an activation.
        accumulator_bits: Width of the accumulator.
        float_dtype: Floating-point dtype of the arithmetic; None means integers.
        shift_terms: Powers of two in a weight, where shifts and sums replace products.
        on_chip_bytes: Bytes read from and written to on-chip memory.
        on_chip_memory_bytes: Size of the on-chip memory; required if `on_chip_bytes` is not 0.
        dram_bytes: Bytes read from and written to external memory.

    Raises:
        EvaluationError: A negative count, a width below 1, or no size for an on-chip memory that is accessed.
    """
    compute_pj = number(n_macs, "n_macs") * mac_pj(
        weight_bits, activation_bits, accumulator_bits, float_dtype, shift_terms
    )
    on_chip_bits = 8 * number(on_chip_bytes, "on_chip_bytes")
    if on_chip_bits and on_chip_memory_bytes is None:
        raise EvaluationError(
            f"on_chip_memory_bytes: the memory's size is required for on_chip_bytes={on_chip_bytes!r}"
        )
    on_chip_pj = 0.0 if on_chip_memory_bytes is None else on_chip_bits * sram_pj_per_bit(on_chip_memory_bytes)
    return KernelEnergy(compute_pj, on_chip_pj, 8 * number(dram_bytes, "dram_bytes") * DRAM_PJ_PER_BIT)

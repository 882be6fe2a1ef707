"""The knobs of the quantize stage. Defaults suit x86: unsigned activations, signed weights, QDQ."""

from collections.abc import Iterable
from dataclasses import replace

from spaces.knob_spec import KnobSpec

KNOBS = (
    KnobSpec("calibration_images", 256, "calibration examples for the activation ranges", low=1),
    KnobSpec(
        "degraded_share",
        0.0,
        "share of calibration images degraded by noise, blur, low contrast or JPEG",
        low=0.0,
        high=1.0,
    ),
    KnobSpec(
        "scheme",
        "asymmetric",
        "how scale and zero point are computed from a real range",
        allowed=("asymmetric", "symmetric", "symmetric_uint8", "symmetric_power2"),
    ),
    KnobSpec("clipping", "max", "how outliers are clipped", allowed=("max", "kl", "percentile", "mse")),
    KnobSpec(
        "percentile", 99.99, "per cent of the values that clipping=percentile keeps", low=90.0, high=100.0
    ),
    KnobSpec(
        "granularity",
        "channel",
        "one weight scale per tensor or per output channel",
        allowed=("tensor", "channel"),
    ),
    KnobSpec("mixed_precision", False, "keep the first and the last layer float", allowed=(False, True)),
    KnobSpec("weight_bits", 8, "bits of the weights", allowed=(2, 3, 4, 5, 6, 7, 8), per_layer=True),
    KnobSpec(
        "activation_bits",
        8,
        "bits of the activations; below 8 only inputs of layers are quantized, and the arithmetic is float",
        allowed=(2, 3, 4, 5, 6, 7, 8, 16),
    ),
    KnobSpec(
        "ends_8_bit",
        False,
        "weights and input activations of the first and last layer have at least 8 bits",
        allowed=(False, True),
    ),
    KnobSpec(
        "rounding",
        "nearest",
        "how weights are rounded: to nearest, with feedback (gptq), or learned layer by layer (adaround) or block by block (brecq)",
        allowed=("nearest", "gptq", "adaround", "brecq"),
    ),
    KnobSpec("rounding_steps", 300, "gradient steps of learned rounding for each layer or block", low=1),
    KnobSpec("keep_float", (), "layers kept float, as patterns over their names", list_of_globs=True),
    KnobSpec(
        "bias_correction",
        False,
        "correct biases by the mean error of quantized weights",
        allowed=(False, True),
    ),
    KnobSpec(
        "cross_layer_equalization", False, "equalize channel ranges between layers", allowed=(False, True)
    ),
    KnobSpec(
        "activation_matmuls",
        False,
        "quantize products of two activations, as in attention, too",
        allowed=(False, True),
    ),
    KnobSpec("activation_type", "unsigned", "how activations are stored", allowed=("unsigned", "signed")),
    KnobSpec("weight_type", "signed", "how weights are stored", allowed=("unsigned", "signed")),
    KnobSpec(
        "format", "qdq", "Quantize/Dequantize pairs, or quantized operators", allowed=("qdq", "qoperator")
    ),
    KnobSpec("reduce_range", False, "8-bit weights use 7 bits, for CPUs without VNNI", allowed=(False, True)),
)


def knobs_with(roundings: Iterable[str]) -> tuple[KnobSpec, ...]:
    """Returns the knobs with these methods of rounding, besides `nearest`."""
    allowed = ("nearest", *roundings)
    return tuple(replace(knob, allowed=allowed) if knob.name == "rounding" else knob for knob in KNOBS)

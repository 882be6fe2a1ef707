"""The knobs of the quantize stage. Defaults suit x86: unsigned activations, signed weights, QDQ."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from spaces.knob_spec import PLACES, WEIGHTS_ALONE, KnobSpec, Technique

PRECISIONS = ("static", "weights_only", "float16", "dynamic")
FORMATS = ("uniform", "gwq", "ternary", "shift_add", "fixed_point", "codes")
FORMAT_KNOBS = (
    "group_size",
    "outlier_share",
    "scale_terms",
    "narrow_share",
    "set_bits",
    "code_bits",
    "code_vector",
    "codebooks",
    "code_tuning_steps",
    "weight_importance",
)
"""Options of weight formats."""

# What becomes of the places of a transformer that a quantizer must speak of, in the order of PLACES.
_STATIC = (
    "float; with activation_matmuls=true on a uniform grid over [0, 1]",
    "GELU is float, its output on a uniform per-tensor grid where a layer reads it",
    "the normalization is float, its output on a uniform per-tensor grid where a layer reads it",
    "an integer addition; both addends and the sum have per-tensor grids",
)
_READ = "float; on a uniform per-tensor grid of the batch's range where a layer reads it"
_DYNAMIC = (_READ, _READ, _READ, "float")
_INTEGER = (
    "Softmax by shifts and an integer division (simulated)",
    "GELU by shifts and an integer division (simulated)",
    "integer square root by Newton's method (simulated)",
    "as quantize.precision says",
)
_AS_PRECISION = ("as quantize.precision says",) * len(PLACES)
_RANGES = Technique("quantization", ("data",), places=_AS_PRECISION)
_CORRECTIONS = Technique(
    "quantization",
    paper="Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv 1906.04721",
    places=_AS_PRECISION,
)
_PRECISIONS = {
    "static": Technique("quantization", ("data",), places=_STATIC),
    "weights_only": Technique("quantization", places=("float",) * len(PLACES)),
    "float16": Technique("quantization", places=("float16",) * len(PLACES)),
    "dynamic": Technique("quantization", places=_DYNAMIC),
}

KNOBS = (
    KnobSpec("calibration_images", 256, "calibration examples for the activation ranges", low=1),
    KnobSpec(
        "degraded_share",
        0.0,
        "share of calibration images degraded by noise, blur, low contrast or JPEG",
        techniques=((0.5, _RANGES),),
        low=0.0,
        high=1.0,
    ),
    KnobSpec(
        "scheme",
        "asymmetric",
        "how scale and zero point are computed from a real range",
        allowed=("asymmetric", "symmetric", "symmetric_uint8", "symmetric_power2"),
    ),
    KnobSpec(
        "clipping",
        "max",
        "how outliers are clipped",
        allowed=("max", "kl", "percentile", "mse"),
        techniques=tuple((name, _RANGES) for name in ("max", "kl", "percentile", "mse")),
    ),
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
    KnobSpec(
        "precision",
        "static",
        "integers with ranges found before (static) or while it runs (dynamic), float16, or integer weights alone (weights_only)",
        allowed=PRECISIONS,
        techniques=tuple(_PRECISIONS.items()),
        each_first=True,
    ),
    KnobSpec("weight_bits", 8, "bits of the weights", allowed=(2, 3, 4, 5, 6, 7, 8), per_layer=True),
    KnobSpec("weight_format", "uniform", "how weights are stored: see formats/README.md", allowed=FORMATS),
    KnobSpec(
        "group_size",
        0,
        "consecutive inputs of a channel that share a weight scale; 0: as granularity says",
        low=0,
    ),
    KnobSpec("outlier_share", 0.01, "share of the weights that gwq keeps in float16", low=0.0, high=0.99),
    KnobSpec("scale_terms", 3, "most powers of two (K) in a scale of shift_add", low=1, high=4),
    KnobSpec(
        "narrow_share",
        0.0,
        "share of the weights, in the least sensitive layers, that shift_add gives one bit less",
        low=0.0,
        high=1.0,
    ),
    KnobSpec("set_bits", 0, "most set bits (K-hot) of a fixed_point weight; 0 for no limit", low=0, high=3),
    KnobSpec("code_bits", 8, "bits of a code, which stands for code_vector weights", low=2, high=12),
    KnobSpec("code_vector", 4, "consecutive weights of a channel that share a code", low=1, high=16),
    KnobSpec("codebooks", 1, "codebooks whose vectors are added", low=1, high=2),
    KnobSpec(
        "code_tuning_steps",
        0,
        "steps of PV-tuning of codes towards the outputs of Gemm and MatMul layers",
        low=0,
        techniques=(
            (
                20,
                Technique(
                    "quantization",
                    ("data",),
                    "light",
                    paper="PV-Tuning: Beyond Straight-Through Estimation for Extreme LLM Compression, arXiv 2405.14852",
                    places=WEIGHTS_ALONE,
                    overrides=("+space.quantize.weight_format=[codes]",),
                ),
            ),
        ),
    ),
    KnobSpec(
        "weight_importance",
        "equal",
        "whether shift_add and codes weight errors by the second moments of the inputs",
        allowed=("equal", "inputs"),
    ),
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
    KnobSpec(
        "rounding_steps",
        300,
        "gradient steps of learned rounding for each layer or block; 0 rounds to nearest",
        low=0,
    ),
    KnobSpec(
        "network_steps",
        0,
        "gradient steps in which weights, scales and biases are tuned together after rounding, so that outputs come close to the float network's",
        low=0,
        techniques=((100, Technique("quantization", ("data", "training"), "full", places=_AS_PRECISION)),),
    ),
    KnobSpec("keep_float", (), "layers kept float, as patterns over their names", list_of_globs=True),
    KnobSpec(
        "bias_correction",
        False,
        "correct biases by the mean error of quantized weights",
        allowed=(False, True),
        techniques=((True, replace(_CORRECTIONS, needs=("data",))),),
    ),
    KnobSpec(
        "cross_layer_equalization",
        False,
        "equalize channel ranges between layers",
        allowed=(False, True),
        techniques=((True, _CORRECTIONS),),
    ),
    KnobSpec(
        "activation_matmuls",
        False,
        "quantize products of two activations, as in attention, too",
        allowed=(False, True),
    ),
    KnobSpec(
        "integer_functions",
        False,
        "Softmax, GELU and layer normalization by shifts, additions and divisions of integers (simulated)",
        allowed=(False, True),
        techniques=(
            (True, Technique("quantization", ("data",), paper="I-ViT, arXiv 2207.01405", places=_INTEGER)),
        ),
    ),
    KnobSpec(
        "gelu_limit",
        0.0,
        "with integer_functions, magnitude to which the inputs of GELU are clipped; 0 for none",
        low=0.0,
        high=100.0,
    ),
    KnobSpec(
        "kv_bits",
        32,
        "bits of the keys and values that causal attention caches; below 32 they are rounded where a decoder stores them (simulated)",
        allowed=(2, 4, 8, 16, 32),
        techniques=((4, Technique("quantization", paper="KIVI, arXiv 2402.02750", places=_AS_PRECISION)),),
    ),
    KnobSpec("activation_type", "unsigned", "how activations are stored", allowed=("unsigned", "signed")),
    KnobSpec("weight_type", "signed", "how weights are stored", allowed=("unsigned", "signed")),
    KnobSpec(
        "format", "qdq", "Quantize/Dequantize pairs, or quantized operators", allowed=("qdq", "qoperator")
    ),
    KnobSpec("reduce_range", False, "8-bit weights use 7 bits, for CPUs without VNNI", allowed=(False, True)),
)


def knobs_with(roundings: Iterable[str], formats: Iterable[str]) -> tuple[KnobSpec, ...]:
    """Returns the knobs with these methods of rounding, besides `nearest`, and these formats."""
    return _knobs_with(("nearest", *roundings), tuple(formats))


@cache  # asked of each of thousands of candidates
def _knobs_with(roundings: tuple[str, ...], formats: tuple[str, ...]) -> tuple[KnobSpec, ...]:
    names = {"rounding": roundings, "weight_format": formats}
    return tuple(replace(knob, allowed=names.get(knob.name, knob.allowed)) for knob in KNOBS)

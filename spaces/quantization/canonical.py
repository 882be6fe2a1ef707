"""Canonical knob values, and checks of combinations that cannot be built, without building anything."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import cast

import numpy as np

from spaces.candidate import StageValue, Value
from spaces.errors import StageError, unknown_name
from spaces.knob_spec import KnobSpec
from spaces.quantization.calibration.clipping.methods import clippings
from spaces.quantization.calibration.degraded_split import is_degraded
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.formats.methods import FORMATS
from spaces.quantization.knobs import FORMAT_KNOBS, KNOBS, knobs_with
from spaces.quantization.plan.bias_correction import is_correctable
from spaces.quantization.plan.format_weights import is_product
from spaces.quantization.plan.network import Network
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.methods import METHODS
from spaces.quantization.weight_formats import (
    check_buildable,
    check_group_size,
    has_own_format,
    takes,
    unused,
)

DEFAULTS: Mapping[str, Value] = {knob.name: knob.default for knob in KNOBS}
Values = dict[str, StageValue]


@dataclass(frozen=True)
class Situation:
    """Properties of network and data that canonical values depend on.

    Attributes:
        network: The quantizable nodes and tensors.
        n_pairs: Number of pairs of layers that can be equalized.
        clips: Whether equalization replaces a Clip by a ReLU.
        n_images: Number of calibration examples; None without calibration data.
        no_images: Reason why the inputs are not images; an empty string if they are.
        methods: Methods of rounding besides `nearest`, by name.
        formats: Formats of weights, by name.
        functions: Kinds of the network's functions that have an integer-only form.
        has_cache: Whether a decoder of the network caches keys and values.
    """

    network: Network
    n_pairs: int
    clips: bool
    n_images: int | None
    no_images: str = ""
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    formats: Mapping[str, WeightFormat] = field(default_factory=lambda: FORMATS)
    functions: frozenset[str] = frozenset()
    has_cache: bool = False


def matching(names: Iterable[str], globs: Iterable[str]) -> frozenset[str]:
    """Returns the layer names that match at least one pattern.

    Raises:
        StageError: A pattern matches no layer.
    """
    names, found = tuple(names), set[str]()
    for glob in globs:
        matches = {name for name in names if name == glob or fnmatchcase(name, glob)}
        if not matches:
            raise StageError(unknown_name("layer pattern", glob, names, "quantize.keep_float"))
        found |= matches
    return frozenset(found)


def _kept(network: Network, globs: Iterable[str]) -> frozenset[str]:
    """Returns the layers that match a pattern and would not stay float without it."""
    return matching((*network.names, *network.float_layers), globs).intersection(network.names)


def canonical(situation: Situation, values: Mapping[str, StageValue]) -> Values:
    """Maps knob values that give the same file to one representative.

    Args:
        situation: Network and data.
        values: A value for every knob.

    Raises:
        StageError: A value is invalid, or the combination cannot be built.
    """
    _check_values(values, knobs_with(situation.methods, situation.formats))
    network, chosen = situation.network, _nearest(situation, values)
    kept = _kept(network, cast(tuple[str, ...], chosen["keep_float"]))
    ends = network.ends
    kept |= ends if chosen["mixed_precision"] else frozenset()
    quantized = [name for name in network.names if name not in kept]
    if not quantized:
        chosen = dict(DEFAULTS)  # the float model, whatever the other values are
    elif chosen["precision"] in ("float16", "dynamic"):
        chosen = _without_integers(situation, chosen)
    else:
        chosen["weight_bits"] = _weight_bits(network, quantized, chosen["weight_bits"])
        _check_formats(situation, quantized, chosen)
        chosen |= _inert(situation, quantized, chosen)
        chosen |= _inert_options(situation, quantized, chosen) | _inert_of_transformers(situation, chosen)
        _check_form(chosen)
    chosen["mixed_precision"] = ends <= kept
    listed = kept - ends if ends <= kept else kept
    chosen["keep_float"] = tuple(name for name in network.names if name in listed)
    if situation.n_images is not None:
        chosen["calibration_images"] = min(cast(int, chosen["calibration_images"]), situation.n_images)
    chosen["degraded_share"] = _degraded_share(situation, chosen)
    return chosen


def _nearest(situation: Situation, values: Mapping[str, StageValue]) -> Values:
    """Returns the values with the nearest rounding in place of a learned one without steps."""
    method = situation.methods.get(str(values["rounding"]))
    if values["rounding_steps"] == 0 and (method is None or method.uses_steps):
        return {**values, "rounding": "nearest", "rounding_steps": DEFAULTS["rounding_steps"]}
    return dict(values)


def _without_integers(situation: Situation, chosen: Values) -> Values:
    """Returns the values of a precision that has no calibrated grids.

    Raises:
        StageError: Weights are asked for that it lacks.
    """
    precision = chosen["precision"]
    has = "16-bit float" if precision == "float16" else "8-bit"
    for knob in ("weight_format", "weight_bits"):
        if chosen[knob] != DEFAULTS[knob]:
            raise StageError(
                f"quantize.precision={precision} has {has} weights: {knob} must be {DEFAULTS[knob]}, not {chosen[knob]}"
            )
    kept = ("precision", "cross_layer_equalization") if precision == "dynamic" else ("precision",)
    found: Values = {**DEFAULTS, **{knob: chosen[knob] for knob in kept}}
    return {
        **found,
        "cross_layer_equalization": bool(found["cross_layer_equalization"] and situation.n_pairs),
    }


def _check_formats(situation: Situation, quantized: list[str], chosen: Values) -> None:
    """Raises StageError for a weight format that cannot be built with the other values."""
    if not has_own_format(chosen):
        return
    form = situation.formats[str(chosen["weight_format"])]
    layers = [x for x in situation.network.layers if x.name in quantized]
    if takes(form, "group_size") and chosen["group_size"]:
        check_group_size(layers, cast(int, chosen["group_size"]))
    check_buildable(form, {**chosen, **unused(form)}, _widths(chosen))


def _inert_options(situation: Situation, quantized: list[str], chosen: Values) -> Values:
    """Returns the options of formats and of precisions without effect, with their canonical values."""
    form = situation.formats[str(chosen["weight_format"])]
    found: Values = dict(unused(form))
    if not any(is_product(x) for x in situation.network.layers if x.name in quantized):
        found["code_tuning_steps"] = DEFAULTS["code_tuning_steps"]
    ends = bool(chosen["ends_8_bit"])
    if has_own_format(chosen):
        if not ends and chosen["group_size"] and takes(form, "group_size"):
            found["granularity"] = DEFAULTS["granularity"]
        if not ends and not takes(form, "granularity"):
            found["granularity"] = DEFAULTS["granularity"]
        if not takes(form, "weight_bits"):
            found["weight_bits"] = DEFAULTS["weight_bits"]
    if chosen["precision"] == "weights_only":
        found |= {k: DEFAULTS[k] for k in ("activation_bits", "activation_type", "activation_matmuls")}
        if (
            chosen["rounding"] == "nearest"
            and not chosen["bias_correction"]
            and not chosen["network_steps"]
            and found.get("weight_importance", chosen["weight_importance"]) == "equal"
            and found.get("code_tuning_steps", chosen["code_tuning_steps"]) == 0
        ):
            found |= {k: DEFAULTS[k] for k in ("calibration_images", "degraded_share")}
    return found


def _degraded_share(situation: Situation, chosen: Mapping[str, StageValue]) -> float:
    """Returns the share of degraded images; 0 if no image is selected or inputs are not images."""
    share, n_images = float(cast(float, chosen["degraded_share"])), cast(int, chosen["calibration_images"])
    if share == 0 or situation.no_images or not is_degraded(np.arange(n_images), share).any():
        return 0.0
    return share


def _check_values(values: Mapping[str, StageValue], knobs: Iterable[KnobSpec]) -> None:
    for name in values:
        if name not in DEFAULTS:
            raise StageError(unknown_name("knob", name, DEFAULTS, "quantize"))
    for knob in knobs:
        value = values[knob.name]
        parts = value.values() if isinstance(value, dict) and knob.per_layer else [cast(Value, value)]
        for part in parts:
            if problem := knob.problem(part):
                raise StageError(f"quantize.{knob.name} {problem}")


def _weight_bits(network: Network, quantized: list[str], bits: StageValue) -> StageValue:
    """Returns the bits of the quantized layers; a single number if all are equal."""
    if not isinstance(bits, dict):
        return bits
    for name in bits:
        if name not in network.names and name not in network.float_layers:
            raise StageError(unknown_name("layer", name, network.names, "quantize.weight_bits"))
    chosen = {name: bits.get(name, DEFAULTS["weight_bits"]) for name in quantized}
    return chosen if len(set(chosen.values())) > 1 else next(iter(chosen.values()))


def _widths(chosen: Mapping[str, StageValue]) -> frozenset[Value]:
    bits = chosen["weight_bits"]
    return frozenset(bits.values() if isinstance(bits, dict) else (bits,))


def _inert(situation: Situation, quantized: list[str], chosen: Values) -> Values:
    """Returns the knobs without effect, given the other values, with their canonical values."""
    found: Values = {}
    clipping = clippings()[str(chosen["clipping"])]
    never = cast(int, chosen["activation_bits"]) > clipping.most_bits
    if never or (clipping.name == "percentile" and chosen["percentile"] == 100):
        found["clipping"] = "max"
    if found.get("clipping", clipping.name) != "percentile":
        found["percentile"] = DEFAULTS["percentile"]
    if (8 not in _widths(chosen) or has_own_format(chosen)) and not chosen["ends_8_bit"]:
        found["reduce_range"] = False
    method = situation.methods.get(str(chosen["rounding"]))
    if method is None or not method.uses_steps:
        found["rounding_steps"] = DEFAULTS["rounding_steps"]
    if chosen["network_steps"] or (method is not None and method.learns_biases):
        found["bias_correction"] = False
    if not situation.network.ends & set(quantized) or _all_wide(chosen):
        found["ends_8_bit"] = False
    if not situation.n_pairs:
        found["cross_layer_equalization"] = False
    if not situation.network.products:
        found["activation_matmuls"] = False
    layers = [layer for layer in situation.network.layers if layer.name in quantized]
    if not any(is_correctable(layer) for layer in layers):
        found["bias_correction"] = False
    return found


def _inert_of_transformers(situation: Situation, chosen: Values) -> Values:
    """Returns the knobs of transformers without effect, with their canonical values."""
    found: Values = {}
    is_integer = chosen["integer_functions"] and chosen["precision"] == "static" and situation.functions
    if not is_integer:
        found["integer_functions"] = False
    if not is_integer or "Gelu" not in situation.functions:
        found["gelu_limit"] = DEFAULTS["gelu_limit"]
    if not situation.has_cache:
        found["kv_bits"] = DEFAULTS["kv_bits"]
    return found


def _all_wide(chosen: Values) -> bool:
    """Whether all weights and activations have 8 bits or more anyway."""
    if has_own_format(chosen):
        return False
    bits = 16 if chosen["precision"] == "weights_only" else chosen["activation_bits"]
    return min(cast(int, width) for width in (*_widths(chosen), bits)) >= 8


def _check_form(chosen: Mapping[str, StageValue]) -> None:
    """Raises StageError for a combination that onnxruntime cannot run."""
    if chosen["format"] != "qoperator":
        return
    if chosen["activation_matmuls"] and chosen["kv_bits"] != DEFAULTS["kv_bits"]:
        raise StageError(
            "quantize.format=qoperator with activation_matmuls=true multiplies 8-bit keys and values: kv_bits must be "
            f"{DEFAULTS['kv_bits']}, not {chosen['kv_bits']}; set format=qdq"
        )
    if chosen["precision"] == "weights_only":
        raise StageError(
            "quantize.format=qoperator multiplies integers: precision must be static, not weights_only"
        )
    for knob, widths in (("weight_bits", _widths(chosen)), ("activation_bits", {chosen["activation_bits"]})):
        for width in sorted(cast("set[int]", set(widths) - {8})):
            raise StageError(
                f"quantize.format=qoperator has 8-bit operators only: {knob} must be 8, not {width}"
            )
    if chosen["activation_type"] == "signed" and chosen["weight_type"] == "unsigned":
        raise StageError(
            "quantize.format=qoperator: onnxruntime has no kernel for signed activations with unsigned weights; "
            "set weight_type=signed or activation_type=unsigned"
        )


def empty_knobs(situation: Situation, domains: Mapping[str, tuple[Value, ...]]) -> dict[str, str]:
    """Returns the knobs of a space that cannot change the file, each with the reason.

    Args:
        situation: Network and data.
        domains: Values of each knob of the space; an empty tuple for a continuous range.
    """
    network, found = situation.network, dict[str, str]()
    options = {knob: domains.get(knob, (default,)) or (None,) for knob, default in DEFAULTS.items()}
    if situation.n_pairs == 0:
        found["cross_layer_equalization"] = (
            "no two layers follow each other with only a ReLU or Clip between them"
        )
    if not any(is_correctable(layer) for layer in network.layers):
        found["bias_correction"] = "the network has no Conv or Gemm"
    if not network.products:
        found["activation_matmuls"] = "the network has no MatMul of two activations"
    if not {"percentile", None} & set(options["clipping"]):
        found["percentile"] = "only clipping=percentile uses the percentile"
    if not {8, None} & set(options["weight_bits"]) and set(options["ends_8_bit"]) == {False}:
        found["reduce_range"] = "only 8-bit weights can be reduced to 7 bits"
    methods = [situation.methods.get(str(name)) for name in options["rounding"]]
    if not any(
        name is None or (m and m.uses_steps) for name, m in zip(options["rounding"], methods, strict=True)
    ):
        found["rounding_steps"] = "only rounding=adaround and rounding=brecq take steps"
    images = options["calibration_images"]
    if (
        situation.n_images is not None
        and None not in images
        and min(cast(tuple[int, ...], images)) >= situation.n_images
    ):
        found["calibration_images"] = (
            f"the calibration split has {situation.n_images} examples, and all of them are used"
        )
    if situation.no_images:
        found["degraded_share"] = situation.no_images
    kept = {
        _kept(network, cast(tuple[str, ...], globs)) for globs in options["keep_float"] if globs is not None
    }
    if len(kept) == 1 and None not in options["keep_float"]:
        found["keep_float"] = "all values match the same layers"
    if _all_above(options["activation_bits"], options["clipping"]):
        found["clipping"] = (
            "with these activation bits the grid is finer than the histogram, so nothing is clipped"
        )
    if not any(is_product(layer) for layer in network.layers):
        found["code_tuning_steps"] = "the network has no Gemm or MatMul"
    found |= _of_transformers(situation, options) | _options_of_others(situation, options)
    return {knob: reason for knob, reason in found.items() if knob in domains and len(domains[knob]) != 1}


def _of_transformers(situation: Situation, options: Mapping[str, tuple[Value | None, ...]]) -> dict[str, str]:
    """Returns the knobs of transformers that have nothing to act on, each with the reason."""
    found = {}
    if not situation.has_cache:
        found["kv_bits"] = (
            "the network has no attention with a constant causal mask, whose keys and values a decoder caches"
        )
    if not situation.functions:
        found["integer_functions"] = "the network has no Softmax, GELU or layer normalization"
    if "Gelu" not in situation.functions:
        found["gelu_limit"] = "the network has no GELU"
    elif not {True, None} & set(options["integer_functions"]):
        found["gelu_limit"] = "only integer_functions=true uses it"
    return found


def _options_of_others(
    situation: Situation, options: Mapping[str, tuple[Value | None, ...]]
) -> dict[str, str]:
    """Returns the options that no format of the space takes, each with the reason."""
    asked = options["weight_format"]
    if None in asked:
        return {}
    forms = [situation.formats[str(name)] for name in asked]
    found = {}
    for knob in FORMAT_KNOBS:
        takers = [form.name for form in situation.formats.values() if takes(form, knob)]
        if not any(form.name in takers for form in forms):
            found[knob] = f"only weight_format={', '.join(takers)} uses it"
    return found


def _all_above(bits: tuple[Value, ...], names: tuple[Value, ...]) -> bool:
    rows = clippings()
    if None in bits or None in names:
        return False
    return all(
        name == "max" or cast(int, width) > rows[str(name)].most_bits for name in names for width in bits
    )

"""The weight format that knob values choose, and what of the values it does not use."""

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np

from spaces.candidate import StageValue, Value
from spaces.errors import ConfigError, StageError
from spaces.models.layers import Layer
from spaces.quantization.formats.base import WeightFormat
from spaces.quantization.knobs import FORMAT_KNOBS, KNOBS
from spaces.quantization.transformers.kv_cache import FLOAT_BITS


def has_own_format(values: Mapping[str, StageValue]) -> bool:
    """Whether weights are stored otherwise than as integers with a scale for each tensor or channel."""
    return values["weight_format"] != "uniform" or values["group_size"] != 0


def format_with(form: WeightFormat, values: Mapping[str, StageValue], bits: int) -> WeightFormat:
    """Returns a format with the options that knobs set.

    Args:
        form: The format.
        values: A value for every knob.
        bits: Bits of the weight.

    Raises:
        StageError: The format lacks a value.
    """
    options = {
        **values,
        "weight_bits": bits,
        "group": values["group_size"] or values["granularity"],
        "symmetric": values["scheme"] != "asymmetric",
    }
    try:
        return form.adjusted(options)
    except ConfigError as error:
        raise StageError(f"quantize.weight_format={form.name}: {error}") from error


def unused(form: WeightFormat, knobs: Iterable[str] = FORMAT_KNOBS) -> dict[str, Value]:
    """Returns the options that a format does not take, with their defaults."""
    defaults = {knob.name: knob.default for knob in KNOBS}
    return {knob: defaults[knob] for knob in knobs if not takes(form, knob)}


def takes(form: WeightFormat, knob: str) -> bool:
    """Whether a format takes an option."""
    if knob == "weight_importance":
        return form.uses_importance
    knob = {"narrow_share": "scale_terms", "code_tuning_steps": "code_bits"}.get(knob, knob)
    return ("group" if knob in ("group_size", "granularity") else knob) in form.knobs


def check_group_size(layers: Iterable[Layer], size: int) -> None:
    """Raises StageError if no layer has as many inputs as a group."""
    most = max(int(np.prod(x.weight_shape)) // x.weight_shape[x.weight_axis_out] for x in layers)
    if size > most:
        raise StageError(
            f"quantize.group_size={size} is more than the inputs of any channel, at most {most}; 0 with granularity=channel "
            "gives each channel one scale"
        )


def check_buildable(form: WeightFormat, values: Mapping[str, StageValue], widths: Iterable[Value]) -> None:
    """Raises StageError for values that cannot be combined with a format of its own."""
    where = f"quantize.weight_format={form.name}"
    if form.name == "uniform":
        where = f"quantize.group_size={values['group_size']}"
    if values["format"] == "qoperator":
        raise StageError(f"{where}: operators have no such weights; set format=qdq")
    if values["rounding"] != "nearest":
        raise StageError(
            f"{where}: rounding={values['rounding']} rounds weights with a scale for each tensor or channel; set rounding=nearest"
        )
    if values["network_steps"]:
        raise StageError(
            f"{where}: network_steps={values['network_steps']} tunes weights with a scale for each tensor or channel; set network_steps=0"
        )
    if form.name == "uniform" and values["scheme"] == "symmetric_power2":
        raise StageError(f"{where}: scales of groups are no powers of two; set another scheme")
    if values["narrow_share"] and isinstance(values["weight_bits"], dict):
        raise StageError(f"{where}: narrow_share needs one weight_bits for all layers")
    for bits in widths:
        format_with(form, values, cast(int, bits))
        if values["narrow_share"]:
            format_with(form, values, cast(int, bits) - 1)


def simulated_values(
    formats: Mapping[str, WeightFormat], domains: Mapping[str, tuple[Value, ...]]
) -> tuple[str, ...]:
    """Returns the values of a space that no file of plain onnxruntime has a kernel for, a sentence for each knob."""
    names = [str(name) for name in domains.get("weight_format", ())]
    forms = [name for name in names if type(formats[name]).on_grid is WeightFormat.on_grid]
    narrow = [str(bits) for bits in domains.get("activation_bits", ()) if cast(int, bits) < 8]
    integer = ["true"] if True in domains.get("integer_functions", ()) else []
    cache = [str(bits) for bits in domains.get("kv_bits", ()) if bits != FLOAT_BITS]
    found = {
        "weight_format": forms,
        "activation_bits": narrow,
        "integer_functions": integer,
        "kv_bits": cache,
    }
    return tuple(
        f"Simulated: {knob}={', '.join(values)}: the file computes exactly these values without such a kernel, so it gets no latency and no energy"
        for knob, values in found.items()
        if values
    )


def check_space(
    formats: Mapping[str, WeightFormat], layers: Iterable[Layer], domains: Mapping[str, tuple[Value, ...]]
) -> None:
    """Checks that what a space asks of formats and precisions can be built at all.

    Args:
        formats: The formats by name.
        layers: The network's layers.
        domains: Values of each knob of the space; an empty tuple for a continuous range.

    Raises:
        StageError: A group is larger than any channel, a format has none of the widths, or a precision none of the formats.
    """
    defaults: dict[str, Value] = {knob.name: knob.default for knob in KNOBS}
    asked = {knob: domains.get(knob, (default,)) for knob, default in defaults.items()}
    for size in asked["group_size"]:
        check_group_size(layers, cast(int, size))
    for name in asked["weight_format"]:
        problems = [
            _problem(formats[str(name)], {**defaults}, cast(int, bits)) for bits in asked["weight_bits"]
        ]
        if problems and all(problems):
            raise StageError(str(problems[0]))
    for precision in {"float16", "dynamic"}.intersection(map(str, asked["precision"])):
        for knob in ("weight_format", "weight_bits"):
            if asked[knob] and defaults[knob] not in asked[knob]:
                raise StageError(
                    f"quantize.precision={precision} needs {knob}={defaults[knob]}, but the space has {list(asked[knob])}"
                )


def _problem(form: WeightFormat, values: Mapping[str, StageValue], bits: int) -> StageError | None:
    try:
        format_with(form, values, bits)
    except StageError as error:
        return error
    return None

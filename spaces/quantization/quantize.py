"""The quantize stage: from a float ONNX model to one with integer weights and activations."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from spaces.candidate import StageValue, Value
from spaces.errors import StageError
from spaces.knob_spec import KnobSpec, Technique
from spaces.quantization.calibration.degraded_split import DegradedSplit
from spaces.quantization.calibration.histograms import NotFiniteError
from spaces.quantization.calibration.unfit import N_EXAMPLES
from spaces.quantization.canonical import Situation, canonical, empty_knobs, matching
from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.dynamic import to_dynamic_uint8
from spaces.quantization.formats.float16 import to_float16
from spaces.quantization.formats.methods import FORMATS
from spaces.quantization.formats.stored import record_widths, with_records_of
from spaces.quantization.knobs import knobs_with
from spaces.quantization.plan.format_weights import Tuning, input_importance, packed_weights, with_fewer_bits
from spaces.quantization.plan.left_float import NO_QOPERATOR, TWO_ACTIVATIONS, notes
from spaces.quantization.plan.network import Network
from spaces.quantization.plan.plan import Plan, Settings, Spans, make_plan
from spaces.quantization.plan.ranges import Ranges
from spaces.quantization.plan.source import Source, Sources
from spaces.quantization.plan.weight_grids import WeightGrids
from spaces.quantization.qdq.simulated import simulated_model, simulation_notes
from spaces.quantization.qdq.templates import Templates
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.methods import METHODS, round_weights
from spaces.quantization.sensitivity.sensitivity import Planned, Sensitivities
from spaces.quantization.settings import as_integers, kept_float, settings_of
from spaces.quantization.structure import structure
from spaces.quantization.transformers.kv_cache import FLOAT_BITS, SIMULATED_CACHE, with_cache_bits
from spaces.quantization.transformers.replace import with_integer_functions
from spaces.quantization.transformers.spans import IntegerFunctions, integer_functions
from spaces.quantization.weight_formats import check_space, simulated_values
from spaces.stages.artifact import Artifact, Step
from spaces.stages.pixels import no_images
from spaces.stages.stage import Stage, StageContext

if TYPE_CHECKING:
    import onnx


class QuantizeStage(Stage):
    """Post-training quantization to a file that unmodified onnxruntime runs."""

    name = "quantize"
    consumes = ("onnx",)
    produces = "onnx"

    def __init__(self, roundings: Sequence[Method] = (), formats: Sequence[WeightFormat] = ()) -> None:
        """Creates the stage.

        Args:
            roundings: Methods of rounding besides ours; `quantize.rounding` takes their names.
            formats: Formats of weights besides ours; `quantize.weight_format` takes their names.
        """
        self._methods = {**METHODS, **{method.name: method for method in roundings}}
        self._formats = {**FORMATS, **{form.name: form for form in formats}}
        self.knobs: tuple[KnobSpec, ...] = knobs_with(self._methods, self._formats)

    def techniques(self) -> Iterator[tuple[str, Value, str, Technique]]:
        """Yields the methods of rounding and the formats, users' own among them, besides those that the knobs name."""
        yield from super().techniques()
        for knob, found in (("rounding", self._methods), ("weight_format", self._formats)):
            for name, method in found.items():
                yield knob, name, str(type(method).__doc__).split("\n", 1)[0], method.technique

    # Caches that all candidates share; they are not pickled.
    _sources = cached_property(lambda _: Sources())
    _ranges = cached_property(lambda _: Ranges())
    _grids = cached_property(lambda _: WeightGrids())
    _templates = cached_property(lambda _: Templates())
    _sensitivities = cached_property(lambda _: Sensitivities())

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the quantized model; if every layer is kept float, the float model itself.

        Raises:
            StageError: The values contradict each other, or do not fit the model.
        """
        chosen = self.canonical(artifact, values, context)
        step = Step.of(self.name, chosen)
        provenance = (*artifact.provenance, step)
        if chosen["precision"] in ("float16", "dynamic"):
            proto = self._without_calibration(artifact, chosen, context)
            model = with_records_of(proto.SerializeToString(), artifact.onnx_bytes)
            return Artifact.onnx(model, artifact.input, provenance)
        found = self._calibrated(artifact, chosen, context)
        if found is None:
            return replace(artifact, provenance=provenance)
        source, spans, settings = found.source, found.spans, found.settings
        n_images = int(cast(int, chosen["calibration_images"]))
        plan = make_plan(source, spans, settings, self._grids)
        rounded = round_weights(
            self._methods.get(settings.rounding), source, plan, settings, n_images, found.context
        )
        plan = plan if rounded is None else rounded.plan
        weights = None if rounded is None else rounded.weights
        packed = self._packed(found, chosen)
        if packed:
            weights = {name: weight.values for name, weight in packed.items()}
        corrected = None if rounded is None else rounded.biases or None
        if chosen["bias_correction"]:
            corrected = self._ranges.corrected_biases(source, plan, n_images, found.context, weights)
        if settings.layers_only:
            on_grid = {name: weight for name, weight in (weights or {}).items() if name not in packed}
            model = simulated_model(source.with_weights(on_grid), plan, settings, corrected, packed)
        else:
            model = self._templates.model(source, plan, settings, corrected, weights)
        integer = self._integer_functions(artifact, found, chosen)
        model = with_integer_functions(model, integer.spans, cast(float, chosen["gelu_limit"]))
        model = self._with_cache_bits(model, artifact, cast(int, chosen["kv_bits"]), context)
        model = with_records_of(_with_widths(model, plan), artifact.onnx_bytes)
        made = Artifact.onnx(model, artifact.input, provenance)
        cached = [SIMULATED_CACHE.format(bits=chosen["kv_bits"])] if chosen["kv_bits"] != FLOAT_BITS else []
        remarks = [*found.notes, *simulation_notes(settings, packed), *integer.notes, *cached]
        return replace(made, notes={self.name: {"notes": remarks}}) if remarks else made

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Maps settings that give the same file to one of them.

        `keep_float` becomes the names of the layers, in the network's order, without the first and last if
        `mixed_precision` covers these.

        Raises:
            StageError: A value is wrong, or the combination cannot be built.
        """
        return canonical(self._situation(artifact, context), self.defaults() | dict(values))

    def structure(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Returns the part of canonical values that decides nodes, shapes, types and sizes of the file."""
        return structure(self._situation(artifact, context), values)

    def quickest(self, values: Mapping[str, StageValue]) -> dict[str, StageValue]:
        """Returns the values with weights rounded to the nearest: learned rounding takes minutes."""
        return {**values, "rounding": "nearest"}

    def estimates(
        self, artifact: Artifact, candidates: Sequence[Mapping[str, StageValue]], context: StageContext
    ) -> dict[str, NDArray[np.float64]]:
        """Returns estimated signal-to-noise ratios, in decibels, `(n,)` each: see `Sensitivities.figures`."""
        sizes = (*context.calibration_sizes, *(cast(int, c["calibration_images"]) for c in candidates))
        n_images = min(max(sizes), 1 if context.calibration is None else len(context.calibration))
        planned = [self._planned(artifact, values, context) for values in candidates]
        try:
            return self._sensitivities.figures(planned, n_images, context)
        except NotFiniteError:  # on other examples than a candidate's own
            return self._sensitivities.figures(planned, min(n_images, N_EXAMPLES), context)

    def _without_calibration(
        self, artifact: Artifact, chosen: Mapping[str, StageValue], context: StageContext
    ) -> "onnx.ModelProto":
        """Returns the model in half precision, or with activations that are quantized while it runs."""
        network = self._network(artifact, context)
        equalized = bool(chosen["cross_layer_equalization"])
        proto = self._sources.source(artifact, equalized, context, network).artifact.proto()
        kept = kept_float(network, chosen)
        if chosen["precision"] == "float16":
            return to_float16(proto, kept)
        return to_dynamic_uint8(proto, kept | set(network.float_layers))

    def _packed(self, found: "_Calibrated", chosen: Mapping[str, StageValue]) -> dict[str, Packed]:
        """Returns the weights in formats of their own, by layer name."""
        source, formats, importance = found.source, found.settings.formats, {}
        if not formats:
            return {}
        n_images = cast(int, chosen["calibration_images"])
        if chosen["weight_importance"] == "inputs":
            importance = input_importance(source, formats, n_images, found.context)
        if share := cast(float, chosen["narrow_share"]):
            bits = cast(int, chosen["weight_bits"])
            formats = with_fewer_bits(source, formats, bits, share, importance)
        tuning = Tuning.of(source, formats, cast(int, chosen["code_tuning_steps"]), n_images, found.context)
        return packed_weights(source, formats, importance, tuning, found.context)

    def _integer_functions(
        self, artifact: Artifact, found: "_Calibrated", chosen: Mapping[str, StageValue]
    ) -> IntegerFunctions:
        """Returns the functions that become integer in a candidate, and what is to be said of them."""
        if not chosen["integer_functions"]:
            return IntegerFunctions({}, ())
        functions = self._sources.metadata(artifact, found.context).functions
        n_images = cast(int, chosen["calibration_images"])
        return integer_functions(found.source.artifact, functions, n_images, found.context)

    def _with_cache_bits(self, model: bytes, artifact: Artifact, bits: int, context: StageContext) -> bytes:
        """Returns a serialized model with keys and values rounded to a width."""
        if bits == FLOAT_BITS:
            return model
        import onnx

        cached = self._sources.metadata(artifact, context).cached
        made = with_cache_bits(onnx.load_model_from_string(model), cached, bits)
        return bytes(made.SerializeToString(deterministic=True))

    def _planned(
        self, artifact: Artifact, chosen: Mapping[str, StageValue], context: StageContext
    ) -> Planned | None:
        """Returns a candidate's plan; None if every layer is kept float.

        Formats of their own are taken as integers of about as many bits, and dynamic ranges as static ones.
        """
        if chosen["precision"] == "float16":
            return None
        found = self._calibrated(artifact, chosen, context)
        if found is None:
            return None
        plan = make_plan(found.source, found.spans, as_integers(found.source, found.settings), self._grids)
        return Planned(found.source, plan, bool(chosen["bias_correction"]))

    def _calibrated(
        self, artifact: Artifact, chosen: Mapping[str, StageValue], context: StageContext
    ) -> "_Calibrated | None":
        """Returns a candidate's float model, ranges and settings; None if every layer is kept float.

        Activations that are not finite on an example after the first ones, by which the network's parts were
        chosen, have no range: what reads or writes them stays float in this candidate, which its notes say.
        """
        network, infinite = self._network(artifact, context), set[str]()
        n_images, equalized = (
            cast(int, chosen["calibration_images"]),
            bool(chosen["cross_layer_equalization"]),
        )
        examples, before = _examples(context, chosen), network.left_float
        while (settings := settings_of(network, chosen, self._formats)).weight_bits:
            source = self._sources.source(artifact, equalized, examples, network)
            if not settings.rounds_activations:
                return _Calibrated(source, {}, settings, examples, ())
            try:
                spans = self._ranges.spans(source, settings, n_images, examples)
                if settings.wide_inputs and settings.activation_bits < 8:
                    wide = self._ranges.spans(
                        source, replace(settings, activation_bits=8), n_images, examples
                    )
                    spans = {**spans, **{t: wide[t] for t in settings.wide_inputs if t in wide}}
            except NotFiniteError as error:
                if infinite.issuperset(error.tensors):
                    raise
                infinite.update(error.tensors)
                network = self._sources.without(artifact, context, infinite)
            else:
                more = {node: why for node, why in network.left_float.items() if node not in before}
                return _Calibrated(source, spans, settings, examples, notes(more))
        return None

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that cannot change this network's file, each with the reason."""
        return empty_knobs(self._situation(artifact, context), domains)

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks that every pattern of `keep_float` matches a layer, that formats have their options, and that inputs can be degraded.

        Raises:
            StageError: A pattern matches no layer, a format or precision can never be built, or every `degraded_share` is
                above 0 but inputs are not images.
        """
        shares, no_image = domains.get("degraded_share", ()), no_images(artifact.input.float_shape)
        if no_image and shares and all(shares):
            raise StageError(f"quantize.degraded_share must be 0, not {list(shares)}: {no_image}")
        check_space(self._formats, self._network(artifact, context).layers, domains)
        lists = domains.get("keep_float", ())
        self.check_globs(
            artifact, [str(g) for globs in lists if isinstance(globs, tuple) for g in globs], context
        )

    def check_globs(
        self, artifact: Artifact, globs: Iterable[str], context: StageContext | None = None
    ) -> None:
        """Checks that every pattern of `keep_float` matches a layer.

        Raises:
            StageError: A pattern matches no layer; the message names the pattern and the layers.
        """
        network = self._network(artifact, context)
        matching((*network.names, *network.float_layers), globs)

    def remarks(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> tuple[str, ...]:
        """Returns which nodes stay float whatever the other knobs are, and which values are only simulated, a sentence for each reason."""
        network, empty = self._network(artifact, context), self.empty_knobs(artifact, domains, context)
        effective = {knob: values for knob, values in domains.items() if knob not in empty}
        without = {layer.node: NO_QOPERATOR for layer in network.layers if layer.op_type == "ConvTranspose"}
        has_qoperator = "qoperator" in domains.get("format", ())
        asked = True in domains.get("activation_matmuls", ())
        products = {} if asked else dict.fromkeys(network.products, TWO_ACTIVATIONS)
        left = {**network.left_float, **products, **(without if has_qoperator else {})}
        if True in domains.get("integer_functions", ()):
            functions = self._sources.metadata(artifact, context).functions
            left = {n: why for n, why in left.items() if not any(n in f.nodes for f in functions)}
        return (*notes(left), *simulated_values(self._formats, effective))

    def _network(self, artifact: Artifact, context: StageContext | None) -> Network:
        return self._sources.metadata(artifact, context).network

    def _situation(self, artifact: Artifact, context: StageContext) -> Situation:
        metadata = self._sources.metadata(artifact, context)
        n_images = None if context.calibration is None else len(context.calibration)
        return Situation(
            metadata.network,
            metadata.n_pairs,
            metadata.clips,
            n_images,
            no_images(artifact.input.float_shape),
            self._methods,
            self._formats,
            frozenset(function.kind for function in metadata.functions),
            bool(metadata.cached),
        )

    def config(self) -> dict[str, Any]:
        """Returns what `apply` depends on: the plug-ins with their options."""
        own = {**self._methods, **self._formats}
        known = {**METHODS, **FORMATS}
        return {
            **super().config(),
            **{name: repr(made) for name, made in own.items() if known.get(name) != made},
        }


@dataclass(frozen=True)
class _Calibrated:
    """What a candidate's plan is made from.

    Attributes:
        source: The float model.
        spans: Tensor name to the real range that its grid should cover.
        settings: The knobs.
        context: The context with the candidate's calibration split.
        notes: What stays float in this candidate alone.
    """

    source: Source
    spans: Spans
    settings: Settings
    context: StageContext
    notes: tuple[str, ...]


def _with_widths(model: bytes, plan: Plan) -> bytes:
    """Returns the file with the widths of integers that are stored in wider types among its metadata: `packed_bytes` counts these."""
    narrow = {
        f"{name}_quantized": grid.bits for name, grid in plan.weights.items() if grid.bits != grid.stored_bits
    }
    if not narrow:
        return model
    import onnx

    proto = onnx.load_model_from_string(model)
    record_widths(proto, narrow)
    return bytes(proto.SerializeToString(deterministic=True))


def _examples(context: StageContext, chosen: Mapping[str, StageValue]) -> StageContext:
    """Returns the context with the candidate's calibration split: a share of its images may be degraded."""
    share = cast(float, chosen["degraded_share"])
    if not share or context.calibration is None:
        return context
    return replace(context, calibration=DegradedSplit(context.calibration, context.seed, share))

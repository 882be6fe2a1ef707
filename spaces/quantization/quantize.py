"""The quantize stage: from a float ONNX model to one with integer weights and activations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spaces.candidate import StageValue, Value
from spaces.errors import StageError
from spaces.knob_spec import KnobSpec
from spaces.quantization.calibration.degraded_split import DegradedSplit
from spaces.quantization.calibration.histograms import NotFiniteError
from spaces.quantization.calibration.unfit import N_EXAMPLES
from spaces.quantization.canonical import Situation, canonical, empty_knobs, matching
from spaces.quantization.formats.stored import record_widths
from spaces.quantization.knobs import knobs_with
from spaces.quantization.plan.left_float import NO_QOPERATOR, TWO_ACTIVATIONS, notes
from spaces.quantization.plan.network import Network
from spaces.quantization.plan.plan import Plan, Settings, Spans, make_plan
from spaces.quantization.plan.ranges import Ranges
from spaces.quantization.plan.source import Source, Sources
from spaces.quantization.plan.weight_grids import WeightGrids
from spaces.quantization.qdq.simulated import SIMULATED, simulated_model
from spaces.quantization.qdq.templates import Templates
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.methods import METHODS, round_weights
from spaces.quantization.sensitivity.sensitivity import Planned, Sensitivities
from spaces.quantization.structure import structure
from spaces.stages.artifact import Artifact, Step
from spaces.stages.pixels import no_images
from spaces.stages.stage import Stage, StageContext


class QuantizeStage(Stage):
    """Static post-training quantization to a file that unmodified onnxruntime runs."""

    name = "quantize"
    consumes = ("onnx",)
    produces = "onnx"

    def __init__(self, roundings: Sequence[Method] = ()) -> None:
        """Creates the stage.

        Args:
            roundings: Methods of rounding besides ours; `quantize.rounding` takes their names.
        """
        self._methods = {**METHODS, **{method.name: method for method in roundings}}
        self.knobs: tuple[KnobSpec, ...] = knobs_with(self._methods)

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
        corrected = None if rounded is None else rounded.biases or None
        if chosen["bias_correction"]:
            corrected = self._ranges.corrected_biases(source, plan, n_images, found.context, weights)
        if settings.layers_only:
            model = simulated_model(source.with_weights(weights or {}), plan, settings, corrected)
        else:
            model = self._templates.model(source, plan, settings, corrected, weights)
        made = Artifact.onnx(_with_widths(model, plan), artifact.input, provenance)
        remarks = [
            *found.notes,
            *([SIMULATED.format(bits=settings.activation_bits)] if settings.layers_only else []),
        ]
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

    def _planned(
        self, artifact: Artifact, chosen: Mapping[str, StageValue], context: StageContext
    ) -> Planned | None:
        """Returns a candidate's plan; None if every layer is kept float."""
        found = self._calibrated(artifact, chosen, context)
        if found is None:
            return None
        plan = make_plan(found.source, found.spans, found.settings, self._grids)
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
        while (settings := _settings(network, chosen)).weight_bits:
            source = self._sources.source(artifact, equalized, examples, network)
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
        """Checks that every pattern of `keep_float` matches a layer, and that inputs can be degraded.

        Raises:
            StageError: A pattern matches no layer, or every `degraded_share` is above 0 but inputs are not
                images.
        """
        shares, no_image = domains.get("degraded_share", ()), no_images(artifact.input.float_shape)
        if no_image and shares and all(shares):
            raise StageError(f"quantize.degraded_share must be 0, not {list(shares)}: {no_image}")
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
        """Returns which nodes stay float whatever the other knobs are, a sentence for each reason."""
        network = self._network(artifact, context)
        without = {layer.node: NO_QOPERATOR for layer in network.layers if layer.op_type == "ConvTranspose"}
        has_qoperator = "qoperator" in domains.get("format", ())
        asked = True in domains.get("activation_matmuls", ())
        products = {} if asked else dict.fromkeys(network.products, TWO_ACTIVATIONS)
        return notes({**network.left_float, **products, **(without if has_qoperator else {})})

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
        )


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


def _settings(network: Network, chosen: Mapping[str, StageValue]) -> Settings:
    kept = set(cast(tuple[str, ...], chosen["keep_float"]))
    if chosen["mixed_precision"]:
        kept |= network.ends
    quantized = [name for name in network.names if name not in kept]
    bits = chosen["weight_bits"]
    widths: dict[str, Any] = dict(bits) if isinstance(bits, dict) else dict.fromkeys(quantized, bits)
    ends = network.ends if chosen["ends_8_bit"] else frozenset()
    widths |= {name: max(cast(int, widths[name]), 8) for name in ends.intersection(quantized)}
    return Settings(
        scheme=str(chosen["scheme"]),
        clipping=str(chosen["clipping"]),
        percentile=float(cast(float, chosen["percentile"])),
        per_channel=chosen["granularity"] == "channel",
        weight_bits={name: cast(int, widths[name]) for name in quantized},
        activation_bits=cast(int, chosen["activation_bits"]),
        activation_type=str(chosen["activation_type"]),
        weight_type=str(chosen["weight_type"]),
        format=str(chosen["format"]),
        reduce_range=bool(chosen["reduce_range"]),
        activation_matmuls=bool(chosen["activation_matmuls"]),
        rounding=str(chosen["rounding"]),
        rounding_steps=cast(int, chosen["rounding_steps"]),
        wide_inputs=frozenset(layer.input for layer in network.layers if layer.name in ends),
    )

"""The quantize stage: from a float ONNX model to one with integer weights and activations."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from spaces.artifact import Artifact, Step
from spaces.cache import digest_of
from spaces.candidate import Value
from spaces.quantization.bias_correction import correct_biases, is_correctable
from spaces.quantization.canonical import Situation, canonical, empty_knobs, matching
from spaces.quantization.cross_layer_equalization import equalize, pairs
from spaces.quantization.knobs import KNOBS
from spaces.quantization.network import Network, network_of
from spaces.quantization.ort_adapter import quantized_model
from spaces.quantization.plan import Settings, make_plan
from spaces.quantization.prepare import prepared
from spaces.quantization.statistics import Statistics, Wanted
from spaces.stage import KnobSpec, Stage, StageContext, StageValue

if TYPE_CHECKING:
    import onnx

N_NETWORKS_KEPT = 16


@dataclass(frozen=True)
class _Facts:
    network: Network
    n_pairs: int


class QuantizeStage(Stage):
    """Static post-training quantization, onto a file that plain onnxruntime runs."""

    name = "quantize"
    consumes = ("onnx",)
    produces = "onnx"
    knobs: ClassVar[tuple[KnobSpec, ...]] = KNOBS

    def __init__(self) -> None:
        self._facts_of: OrderedDict[str, _Facts] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {"_facts_of": OrderedDict()}  # read again where it arrives

    def apply(self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext) -> Artifact:
        """Returns the quantized model; if every layer is kept float, the float model as it is.

        Raises:
            StageError: The values clash, or do not fit the model.
        """
        chosen = self.canonical(artifact, values, context)
        step = Step(self.name, tuple((k, _frozen(v)) for k, v in sorted(chosen.items())))
        provenance = (*artifact.provenance, step)
        network = self._facts(artifact).network
        settings = _settings(network, chosen)
        if not settings.weight_bits:
            return replace(artifact, provenance=provenance)
        source = _equalized(artifact, context) if chosen["cross_layer_equalization"] else artifact
        proto = prepared(source)
        # The network's names are those of `artifact`: equalization changes numbers only, and Clip to ReLU.
        statistics = Statistics(
            Artifact.onnx(proto, source.input),
            _wanted(network),
            int(cast(int, chosen["calibration_images"])),
            context,
        )
        weights = _initializers(proto, (layer.name for layer in network.layers))
        biases = _initializers(proto, (layer.bias for layer in network.layers))
        plan = make_plan(network, weights, biases, statistics, settings, context)
        if chosen["bias_correction"]:
            correct_biases(proto, network.layers, weights, plan.weights, statistics.means())
        return Artifact.onnx(quantized_model(proto, network, plan, settings), artifact.input, provenance)

    def canonical(
        self, artifact: Artifact, values: Mapping[str, StageValue], context: StageContext
    ) -> dict[str, StageValue]:
        """Maps settings that come to the same file onto one of them.

        `keep_float` becomes the names of the layers, in the network's order, less the first and last if
        `mixed_precision` stands for these.

        Raises:
            StageError: A value is wrong, or the combination cannot be built.
        """
        return canonical(self._situation(artifact, context), self.defaults() | dict(values))

    def empty_knobs(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> dict[str, str]:
        """Returns the knobs that cannot change this network's file, each with the reason."""
        return empty_knobs(self._situation(artifact, context), domains)

    def check(
        self, artifact: Artifact, domains: Mapping[str, tuple[Value, ...]], context: StageContext
    ) -> None:
        """Checks that every pattern of `keep_float` in the space matches a layer.

        Raises:
            StageError: One does not.
        """
        lists = domains.get("keep_float", ())
        self.check_globs(artifact, [str(g) for globs in lists if isinstance(globs, tuple) for g in globs])

    def check_globs(self, artifact: Artifact, globs: Iterable[str]) -> None:
        """Checks that every pattern of `keep_float` matches a layer.

        Raises:
            StageError: One does not; the message names it and the layers.
        """
        matching(self._facts(artifact).network.names, globs)

    def _situation(self, artifact: Artifact, context: StageContext) -> Situation:
        facts = self._facts(artifact)
        n_images = None if context.calibration is None else len(context.calibration)
        return Situation(facts.network, facts.n_pairs, n_images)

    def _facts(self, artifact: Artifact) -> _Facts:
        found = self._facts_of.pop(artifact.digest, None)
        if found is None:
            proto = prepared(artifact)
            found = _Facts(network_of(proto), len(pairs(proto)))
        self._facts_of[artifact.digest] = found
        while len(self._facts_of) > N_NETWORKS_KEPT:
            self._facts_of.popitem(last=False)
        return found


def _equalized(artifact: Artifact, context: StageContext) -> Artifact:
    def build() -> bytes:
        proto = prepared(artifact)
        equalize(proto)
        return bytes(proto.SerializeToString(deterministic=True))

    return Artifact.onnx(context.cache.blob(f"equalized-{digest_of(artifact.digest)}", build), artifact.input)


def _wanted(network: Network) -> Wanted:
    axes = {
        layer.input: 1 if layer.op_type == "Conv" else -1 for layer in network.layers if is_correctable(layer)
    }
    return Wanted(network.tensors, tuple(axes.items()))


def _settings(network: Network, chosen: Mapping[str, StageValue]) -> Settings:
    kept = set(cast(tuple[str, ...], chosen["keep_float"]))
    if chosen["mixed_precision"]:
        kept |= {network.names[0], network.names[-1]}
    quantized = [name for name in network.names if name not in kept]
    bits = chosen["weight_bits"]
    widths = bits if isinstance(bits, dict) else dict.fromkeys(quantized, bits)
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
    )


def _initializers(proto: "onnx.ModelProto", names: Iterable[str | None]) -> dict[str, NDArray[np.float32]]:
    from onnx import numpy_helper

    wanted = set(names)
    return {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer if i.name in wanted}


def _frozen(value: StageValue) -> Value:
    """Makes a value fit for provenance: one value per layer becomes a sorted tuple of pairs."""
    return tuple(sorted(value.items())) if isinstance(value, dict) else value

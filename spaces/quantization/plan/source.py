"""The prepared float models that candidates are quantized from, with an LRU cache."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.models.onnx import protobuf_encoding as protobuf
from spaces.quantization.calibration.statistics import Wanted
from spaces.quantization.calibration.unfit import INFINITE, unfit_tensors
from spaces.quantization.plan.bias_correction import is_correctable
from spaces.quantization.plan.cross_layer_equalization import equalize, pairs
from spaces.quantization.plan.network import Network, network_of
from spaces.quantization.plan.prepare import prepared
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.transformers.found import float_functions
from spaces.quantization.transformers.graph_index import FloatFunction
from spaces.quantization.transformers.kv_cache import CachedOperand, cached_operands
from spaces.stages.artifact import Artifact
from spaces.stages.stage import StageContext

N_NETWORKS = 16
MAX_SOURCE_BYTES = 256 * 2**20

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class GraphMetadata:
    """Properties of a float model's graph, without its numbers.

    Attributes:
        network: The quantizable nodes and tensors.
        n_pairs: Number of pairs of layers that can be equalized.
        clips: Whether equalization replaces a Clip by a ReLU.
        functions: The functions that have an integer-only form.
        cached: Keys and values of causal attention.
    """

    network: Network
    n_pairs: int
    clips: bool
    functions: tuple[FloatFunction, ...]
    cached: tuple[CachedOperand, ...]


@dataclass(frozen=True)
class Source:
    """A float model that is ready to be quantized.

    Attributes:
        artifact: The prepared model.
        network: The quantizable nodes and tensors. Names are those before equalization, which keeps them.
        weights: Layer name to float weight.
        biases: Bias name to float bias.
    """

    artifact: Artifact
    network: Network
    weights: Arrays
    biases: Arrays

    @cached_property
    def key(self) -> str:
        """Key of cached results: over the model, and over which of its nodes can be quantized."""
        return digest_of(self.artifact.digest, self.network.fixed)

    def with_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> "Source":
        """Returns the network with other weights, by layer name."""
        from onnx import numpy_helper

        if not weights:
            return self
        proto = self.artifact.proto()
        for tensor in proto.graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
        return Source(
            Artifact.onnx(proto, self.artifact.input), self.network, {**self.weights, **weights}, self.biases
        )

    @cached_property
    def sized(self) -> frozenset[str]:
        """Names of the initializers that are smaller in the outline."""
        return frozenset(self.weights.keys() | self.biases.keys())

    @property
    def initializers(self) -> frozenset[str]:
        """Names of all initializers."""
        return frozenset(self._fields)

    def field(self, name: str) -> bytes:
        """Returns an initializer, as a serialized field of the graph."""
        begin, end = self._fields[name]
        return self.artifact.onnx_bytes[begin:end]

    @cached_property
    def _fields(self) -> dict[str, tuple[int, int]]:
        data = self.artifact.onnx_bytes
        _, _, first, last = next(f for f in protobuf.fields(data, 0, len(data)) if f[0] == protobuf.GRAPH)
        found = [f for f in protobuf.fields(data, first, last) if f[0] == protobuf.INITIALIZER]
        return {
            protobuf.text(data, at, end, protobuf.TENSOR_NAME): (begin, end) for _, begin, at, end in found
        }

    @cached_property
    def opset(self) -> int:
        """The model's opset."""
        imports = self.artifact.proto().opset_import
        return next(int(o.version) for o in imports if o.domain in ("", "ai.onnx"))

    @cached_property
    def outline(self) -> "Source":
        """The same graph with at most two output channels per layer and one weight in each."""
        from onnx import numpy_helper

        axes = {layer.name: layer.weight_axis_out for layer in self.network.layers}
        weights = {
            name: weight[tuple(slice(2 if i == axes[name] else 1) for i in range(weight.ndim))]
            for name, weight in self.weights.items()
        }
        biases = {name: outlined(bias) for name, bias in self.biases.items()}
        proto = self.artifact.proto()
        for tensor in proto.graph.initializer:
            if tensor.name in self.sized:
                smaller = weights.get(tensor.name, biases.get(tensor.name))
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(smaller), tensor.name))
        return Source(Artifact.onnx(proto, self.artifact.input), self.network, weights, biases)

    @property
    def n_bytes(self) -> int:
        """Size in memory, in bytes."""
        arrays = (*self.weights.values(), *self.biases.values())
        return len(self.artifact.onnx_bytes) + sum(a.nbytes for a in arrays)

    @property
    def wanted(self) -> Wanted:
        """The tensors whose statistics are needed."""
        axes = {
            layer.input: 1 if layer.op_type == "Conv" else -1
            for layer in self.network.layers
            if is_correctable(layer)
        }
        return Wanted(self.network.tensors, tuple(axes.items()))


def outlined(array: NDArray[Any]) -> NDArray[Any]:
    """Returns at most the first two entries along every axis."""
    index = (slice(2),) * array.ndim
    return np.asarray(array[index])


class Sources:
    """LRU cache of prepared float models."""

    def __init__(self) -> None:
        self._metadata: Recent[tuple[str, str | None], GraphMetadata] = Recent(N_NETWORKS)
        self._sources: Recent[tuple[str, bool, tuple[str, ...]], Source] = Recent(
            MAX_SOURCE_BYTES, lambda s: s.n_bytes
        )

    def metadata(self, artifact: Artifact, context: StageContext | None = None) -> GraphMetadata:
        """Returns the metadata of a float model's graph.

        Args:
            artifact: The float model.
            context: Calibration data, whose first examples show which activations have no range; None to skip that.

        Raises:
            StageError: The model cannot be quantized.
        """
        data = None if context is None or context.calibration is None else context.calibration.digest
        return self._metadata.get((artifact.digest, data), lambda: _metadata(artifact, context))

    def without(self, artifact: Artifact, context: StageContext, infinite: Collection[str]) -> Network:
        """Returns the network with more activations without a range than its first examples show.

        Args:
            artifact: The float model.
            context: Calibration data.
            infinite: Names of the activations that are not finite on later examples.

        Raises:
            StageError: No layer is left that can be quantized.
        """
        return _network(artifact, context, infinite)

    def source(
        self, artifact: Artifact, equalized: bool, context: StageContext, network: Network | None = None
    ) -> Source:
        """Returns the prepared float model, equalized if `equalized`.

        Args:
            artifact: The float model.
            equalized: Whether channel ranges are equalized.
            context: Calibration data and the cache.
            network: The model's quantizable parts, if the context has another split than decided them.

        Raises:
            StageError: The model cannot be quantized.
        """
        found = self.metadata(artifact, context).network if network is None else network

        def build() -> Source:
            return _source(_equalized(artifact, context) if equalized else artifact, found)

        return self._sources.get((artifact.digest, equalized, found.fixed), build)


def _metadata(artifact: Artifact, context: StageContext | None) -> GraphMetadata:
    proto = prepared(artifact)
    found = pairs(proto)
    network = network_of(proto) if context is None else _network(artifact, context)
    return GraphMetadata(
        network,
        len(found),
        any(pair.clips for pair in found),
        float_functions(proto),
        cached_operands(proto),
    )


def _network(artifact: Artifact, context: StageContext, infinite: Collection[str] = ()) -> Network:
    proto = prepared(artifact)
    network = network_of(proto)
    tensors = (*network.tensors, *network.follows)
    unfit = unfit_tensors(Artifact.onnx(proto, artifact.input), tensors, context)
    unfit |= dict.fromkeys(infinite, INFINITE)
    return network_of(proto, unfit) if unfit else network


def _source(artifact: Artifact, network: Network) -> Source:
    from onnx import numpy_helper

    proto = prepared(artifact)

    def arrays(names: Iterable[str | None]) -> Arrays:
        wanted = set(names)
        return {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer if i.name in wanted}

    return Source(
        artifact=Artifact.onnx(proto, artifact.input),
        network=network,
        weights=arrays(layer.name for layer in network.layers),
        biases=arrays(layer.bias for layer in network.layers),
    )


def _equalized(artifact: Artifact, context: StageContext) -> Artifact:
    def build() -> bytes:
        proto = prepared(artifact)
        equalize(proto)
        return bytes(proto.SerializeToString(deterministic=True))

    return Artifact.onnx(context.cache.blob(f"equalized-{digest_of(artifact.digest)}", build), artifact.input)

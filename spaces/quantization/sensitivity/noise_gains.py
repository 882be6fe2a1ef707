"""Noise gains of a float network: output noise power per noise power of one activation or weight, measured.

The float network runs on a few examples with noise added to one activation, or to one weight, at a time. To
first order the powers of noise from different sources add up, so that the same gains serve every candidate.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.models.layers import Layer
from spaces.models.onnx.ort_session import ort_session
from spaces.models.onnx.subgraphs import names_read
from spaces.quantization.plan.source import Source
from spaces.stages.artifact import Split
from spaces.stages.cache import Arrays
from spaces.stages.stage import StageContext

if TYPE_CHECKING:
    import onnx

MAX_INPUTS = 2**18  # input values of all examples
MAX_EXAMPLES, MIN_EXAMPLES = 8, 2
N_PARTS = 8  # of the network: parts before the noise do not run again
RELATIVE_NOISE = 10**-2.5  # power of the added noise, as a share of the signal's: 25 dB

Arrays32 = dict[str, NDArray[np.float32]]
WeightNoise = Callable[[Layer, NDArray[np.float64]], float]
"""Computes the noise power at a layer's output from the layer and the error of its weight."""


def noise_gains(source: Source, weight_noise: WeightNoise, context: StageContext) -> Arrays:
    """Returns the noise gains per tensor and per layer, cached.

    Args:
        source: The float model.
        weight_noise: Computes the noise power at a layer's output.
        context: Calibration data, cache and seed.

    Returns:
        `tensors`: for each tensor of the network, the relative noise power at the output for noise of power 1
            on the tensor; `layers`: for each layer, the same for noise of power 1 at its output from an error
            of its weight, where
        `weight_noise` computes the power.

    Raises:
        StageError: There is no calibration data, or it does not fit the model.
    """
    if context.calibration is None:
        raise StageError("noise gains are measured on calibration examples, but the stage was given none")
    name = source.artifact.input.output.name
    key = digest_of("gains", source.key, name, context.calibration.digest, MAX_INPUTS, RELATIVE_NOISE)
    split = context.calibration
    return context.cache.arrays(f"gains-{key}", lambda: _measured(source, split, weight_noise))


def _measured(source: Source, split: Split, weight_noise: WeightNoise) -> Arrays:
    noisy = _Noisy(source, split)
    rng = np.random.default_rng(0)
    tensors = [noisy.of_tensor(t, rng) for t in source.network.tensors]
    layers = []
    for layer in source.network.layers:
        weight = source.weights[layer.name]
        spread = np.sqrt(RELATIVE_NOISE * float(np.mean(np.square(weight, dtype=np.float64))))
        error = rng.standard_normal(weight.shape) * spread
        found = noisy.of_weight(layer, (weight + error).astype(np.float32))
        layers.append(found / max(weight_noise(layer, error), 1e-30))
    return {"tensors": np.array(tensors), "layers": np.array(layers)}


class _Noisy:
    """The float network with inputs for noise: one model per part, from its first node to the outputs."""

    def __init__(self, source: Source, split: Split) -> None:
        proto, tensors = _judged(source), source.network.tensors
        nodes = list(proto.graph.node)
        n_parts = min(N_PARTS, len(nodes))
        firsts = [len(nodes) * k // n_parts for k in range(n_parts)]
        part_of = {name: k for k, names in enumerate(_outputs_by_part(nodes, firsts)) for name in names}
        self._part_of_tensor = {t: part_of.get(t, 0) for t in tensors}
        self._part_of_layer = {x.name: part_of[x.output] for x in source.network.layers}
        values = _values(source, split, {*tensors, *(name for f in firsts for name in _read_after(proto, f))})
        self._shapes = {t: values[t].shape for t in tensors}
        self._powers = {t: _power(values[t]) for t in tensors}
        self._shares = {t: float(np.mean(values[t] != 0)) for t in tensors}
        self._clean_outputs = [values[o.name].astype(np.float64) for o in proto.graph.output]
        self._parts = [
            _Part(
                source,
                first,
                [t for t in tensors if self._part_of_tensor[t] == k],
                {name for name, part in self._part_of_layer.items() if part == k},
                values,
            )
            for k, first in enumerate(firsts)
        ]

    def of_tensor(self, tensor: str, rng: np.random.Generator) -> float:
        """Returns the relative output noise power for noise of power 1 on a tensor's non-zero values."""
        power = RELATIVE_NOISE * self._powers[tensor]
        if power == 0:
            return 0.0
        spread = np.sqrt(power / self._shares[tensor])
        noise = (rng.standard_normal(self._shapes[tensor]) * spread).astype(np.float32)
        return self._output_noise(self._part_of_tensor[tensor], {_noise_name(tensor): noise}) / power

    def of_weight(self, layer: Layer, weight: NDArray[np.float32]) -> float:
        """Returns the relative output noise power with another weight in a layer."""
        return self._output_noise(self._part_of_layer[layer.name], {layer.name: weight})

    def _output_noise(self, part: int, feeds: Arrays32) -> float:
        """Returns the noise power of the outputs, divided by their power."""
        noisy = self._parts[part].run(feeds)
        noise = sum(_power(a - b) * a.size for a, b in zip(noisy, self._clean_outputs, strict=True))
        power = sum(_power(b) * b.size for b in self._clean_outputs)
        return noise / power if power > 0 else 0.0


class _Part:
    """The network from one node on, with inputs for noise on given tensors and for given weights."""

    def __init__(
        self, source: Source, first: int, tensors: Sequence[str], weights: set[str], values: Arrays32
    ) -> None:
        from onnx import helper

        proto = _judged(source)
        graph, read = proto.graph, _read_after(proto, first)
        results = {o.name for o in graph.output}
        del graph.node[:first], graph.input[:]
        for name in read:
            kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, None))
        used = {name for node in graph.node for name in names_read(node)} | results
        kept = [i for i in graph.initializer if i.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        self._outputs = _with_noise(proto, tensors, weights)
        self._session = ort_session(proto)
        self._feeds = {name: values[name] for name in read}

    def run(self, feeds: Arrays32) -> list[NDArray[np.float32]]:
        """Returns the network's outputs."""
        return list(self._session.run(self._outputs, self._feeds | feeds))


def _judged(source: Source) -> "onnx.ModelProto":
    """Returns the network with the output that the task judges as its only one."""
    proto, name = source.artifact.proto(), source.artifact.input.output.name
    kept = [output for output in proto.graph.output if output.name == name]
    if kept:
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
    return proto


def _read_after(proto: "onnx.ModelProto", first: int) -> list[str]:
    """Returns the earlier tensors that the nodes from `first` on, or the graph's outputs, read."""
    graph = proto.graph
    nodes = list(graph.node)
    known = {i.name for i in graph.initializer} | {name for node in nodes[first:] for name in node.output}
    read = (*(name for node in nodes[first:] for name in names_read(node)), *(o.name for o in graph.output))
    return [name for name in dict.fromkeys(read) if name and name not in known]


def _outputs_by_part(nodes: "Sequence[onnx.NodeProto]", firsts: Sequence[int]) -> list[set[str]]:
    ends = (*firsts[1:], len(nodes))
    return [
        {name for node in nodes[first:end] for name in node.output}
        for first, end in zip(firsts, ends, strict=True)
    ]


def _values(source: Source, split: Split, names: set[str]) -> Arrays32:
    """Runs the network on a few examples. Returns the named tensors, the inputs and the output."""
    proto, spec = _judged(source), source.artifact.input
    results = [o.name for o in proto.graph.output]
    inputs = {i.name for i in proto.graph.input}
    wanted = [*results, *sorted(names - inputs - set(results))]
    for name in wanted[len(results) :]:
        proto.graph.output.add().name = name  # the type is inferred
    session = ort_session(proto)
    declared = next(i for i in session.get_inputs() if i.name == spec.name).shape[0]
    n = int(np.clip(MAX_INPUTS // spec.size, MIN_EXAMPLES, MAX_EXAMPLES))
    feeds = spec.feeds(next(split.batches(declared if isinstance(declared, int) else n))[0])
    if isinstance(declared, int):
        feeds = {name: np.resize(array, (declared, *array.shape[1:])) for name, array in feeds.items()}
    return dict(zip(wanted, session.run(wanted, feeds), strict=True)) | feeds


def _power(values: NDArray[np.floating]) -> float:
    return float(np.mean(np.square(values, dtype=np.float64)))


def _noise_name(tensor: str) -> str:
    return f"{tensor}/noise"


def _with_noise(proto: "onnx.ModelProto", tensors: Iterable[str], weights: set[str]) -> list[str]:
    """Adds an input for noise on each tensor, in place, and turns the given weights into inputs.

    No noise is added to zeros, since every grid represents them exactly.

    Returns:
        The names of the outputs.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, wanted = proto.graph, set(tensors)
    results = [o.name for o in graph.output]
    nodes = list(graph.node)
    del graph.node[:], graph.output[:]

    def add(tensor: str) -> None:
        noise = _noise_name(tensor)
        graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), noise))
        graph.input.append(helper.make_tensor_value_info(noise, TensorProto.FLOAT, None))
        graph.node.append(helper.make_node("Sign", [tensor], [f"{noise}/sign"]))
        graph.node.append(helper.make_node("Mul", [noise, f"{noise}/sign"], [f"{noise}/kept"]))
        graph.node.append(helper.make_node("Add", [tensor, f"{noise}/kept"], [f"{noise}/sum"]))

    for tensor in (i.name for i in list(graph.input) if i.name in wanted):
        add(tensor)
    for node in nodes:
        for i, name in enumerate(node.input):
            if name in wanted:
                node.input[i] = f"{_noise_name(name)}/sum"
        graph.node.append(node)
        for tensor in node.output:
            if tensor in wanted:
                add(tensor)
    for initializer in graph.initializer:
        if initializer.name in weights:
            info = helper.make_tensor_value_info(initializer.name, TensorProto.FLOAT, list(initializer.dims))
            graph.input.append(info)
    outputs = [f"{_noise_name(r)}/sum" if r in wanted else r for r in results]
    for name in dict.fromkeys(outputs):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    del graph.value_info[:]
    return outputs

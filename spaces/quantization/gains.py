"""How strongly noise at each place of a float network reaches its output: measured by putting a little there.

The float network runs on a few examples with noise added to one activation, or to one weight, at a time. To first order
noise from different places adds up in power, so that these gains serve every candidate.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.artifact import Split
from spaces.cache import Arrays, digest_of
from spaces.errors import StageError
from spaces.models.layers import Layer
from spaces.quantization.source import Source
from spaces.stage import StageContext

if TYPE_CHECKING:
    import onnx

MOST_INPUTS = 2**18  # input values of all examples together
MOST_EXAMPLES, LEAST_EXAMPLES = 8, 2
RELATIVE_NOISE = 10**-2.5  # noise power that is put in, as a share of the signal's: 25 dB

Arrays32 = dict[str, NDArray[np.float32]]
WeightNoise = Callable[[Layer, NDArray[np.float64]], float]
"""From a layer and the error of its weight to the reckoned noise power at the layer's output."""


def output_gains(source: Source, weight_noise: WeightNoise, context: StageContext) -> Arrays:
    """Returns the gains, cached.

    Args:
        source: The float model.
        weight_noise: How noise at a layer's output is reckoned.
        context: Calibration data, cache and seed.

    Returns:
        `tensors`: for each of the network's tensors, relative noise power at the output for noise of power 1 there;
        `layers`: for each layer the same for noise that an error of its weight makes, as `weight_noise` reckons it.

    Raises:
        StageError: There is no calibration data, or it does not fit the model.
    """
    if context.calibration is None:
        raise StageError(
            "the gains of noise are measured on calibration examples, but the stage was given none"
        )
    key = digest_of("gains", source.artifact.digest, context.calibration.digest, MOST_INPUTS, RELATIVE_NOISE)
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
        found = noisy.output_noise({layer.name: (weight + error).astype(np.float32)})
        layers.append(found / max(weight_noise(layer, error), 1e-30))
    return {"tensors": np.array(tensors), "layers": np.array(layers)}


class _Noisy:
    """The float network, with inputs for noise."""

    def __init__(self, source: Source, split: Split) -> None:
        import onnxruntime as ort

        proto = source.artifact.proto()
        self._tensors = source.network.tensors
        outputs = _with_noise(proto, self._tensors, {layer.name for layer in source.network.layers})
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        spec = source.artifact.input
        declared = next(i for i in session.get_inputs() if i.name == spec.name).shape[0]
        per_example = int(np.prod(spec.shape))
        n = int(np.clip(MOST_INPUTS // per_example, LEAST_EXAMPLES, MOST_EXAMPLES))
        examples = next(split.batches(declared if isinstance(declared, int) else n))[0]
        if isinstance(declared, int):
            examples = np.resize(examples, (declared, *examples.shape[1:]))

        def run(names: Sequence[str], feeds: Arrays32) -> list[NDArray[np.float32]]:
            return list(session.run(list(names), {spec.name: examples, **feeds}))

        self._run = run
        self._outputs = outputs
        names = [*(t for t in self._tensors if t != spec.name), *outputs]
        values = dict(zip(names, self._run(names, {}), strict=True)) | {spec.name: examples}
        self._shapes = {t: values[t].shape for t in self._tensors}
        self._powers = {t: _power(values[t]) for t in self._tensors}
        self._shares = {t: float(np.mean(values[t] != 0)) for t in self._tensors}
        self._wanted = [values[o].astype(np.float64) for o in outputs]

    def of_tensor(self, tensor: str, rng: np.random.Generator) -> float:
        """Returns the relative output noise for white noise of power 1 on the non-zero values of a tensor."""
        power = RELATIVE_NOISE * self._powers[tensor]
        if power == 0:
            return 0.0
        spread = np.sqrt(power / self._shares[tensor])
        noise = (rng.standard_normal(self._shapes[tensor]) * spread).astype(np.float32)
        return self.output_noise({_noise_name(tensor): noise}) / power

    def output_noise(self, feeds: Arrays32) -> float:
        """Returns the noise power of the outputs as a share of their power."""
        found = self._run(self._outputs, feeds)
        noise = sum(_power(a - b) * a.size for a, b in zip(found, self._wanted, strict=True))
        power = sum(_power(b) * b.size for b in self._wanted)
        return noise / power if power > 0 else 0.0


def _power(values: NDArray[np.floating]) -> float:
    return float(np.mean(np.square(values, dtype=np.float64)))


def _noise_name(tensor: str) -> str:
    return f"{tensor}/noise"


def _with_noise(proto: "onnx.ModelProto", tensors: Iterable[str], weights: set[str]) -> list[str]:
    """Gives the network an input for noise on each tensor, in place, and lets its weights be fed.

    Zeros stay as they are, since they are exact on any grid.

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
    for name in dict.fromkeys((*(t for t in tensors if t not in {i.name for i in graph.input}), *outputs)):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    del graph.value_info[:]
    return outputs

"""Noise gains of a float network: output noise power per noise power of one activation or weight, measured.

The float network runs on a few examples with noise added to one activation, or to one weight, at a time. To
first order the powers of noise from different sources add up, so that the same gains serve every candidate.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.models.layers import Layer
from spaces.quantization.plan.source import Source
from spaces.quantization.sensitivity.parts import (
    MAX_INPUTS,
    Arrays32,
    Part,
    first_nodes,
    judged,
    noise_name,
    outputs_by_part,
    read_after,
    values_of,
)
from spaces.stages.artifact import Split
from spaces.stages.cache import Arrays
from spaces.stages.stage import StageContext

RELATIVE_NOISE = 10**-2.5  # power of the added noise, as a share of the signal's: 25 dB

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
        proto, tensors = judged(source), source.network.tensors
        nodes = list(proto.graph.node)
        firsts = first_nodes(len(nodes))
        part_of = {name: k for k, names in enumerate(outputs_by_part(nodes, firsts)) for name in names}
        self._part_of_tensor = {t: part_of.get(t, 0) for t in tensors}
        self._part_of_layer = {x.name: part_of[x.output] for x in source.network.layers}
        wanted = {*tensors, *(name for f in firsts for name in read_after(proto, f))}
        values = values_of(source, split, wanted)
        self._shapes = {t: values[t].shape for t in tensors}
        self._powers = {t: _power(values[t]) for t in tensors}
        self._shares = {t: float(np.mean(values[t] != 0)) for t in tensors}
        self._clean_outputs = [values[o.name].astype(np.float64) for o in proto.graph.output]
        self._parts = [
            Part(
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
        return self._output_noise(self._part_of_tensor[tensor], {noise_name(tensor): noise}) / power

    def of_weight(self, layer: Layer, weight: NDArray[np.float32]) -> float:
        """Returns the relative output noise power with another weight in a layer."""
        return self._output_noise(self._part_of_layer[layer.name], {layer.name: weight})

    def _output_noise(self, part: int, feeds: Arrays32) -> float:
        """Returns the noise power of the outputs, divided by their power."""
        noisy = self._parts[part].run(feeds)
        noise = sum(_power(a - b) * a.size for a, b in zip(noisy, self._clean_outputs, strict=True))
        power = sum(_power(b) * b.size for b in self._clean_outputs)
        return noise / power if power > 0 else 0.0


def _power(values: NDArray[np.floating]) -> float:
    return float(np.mean(np.square(values, dtype=np.float64)))

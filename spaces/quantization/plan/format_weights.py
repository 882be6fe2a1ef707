"""Weights in formats of their own: packed once per layer and format, and cached."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.models.layers import Layer
from spaces.quantization.calibration.input_moments import input_moments
from spaces.quantization.calibration.statistics import Statistics, Wanted
from spaces.quantization.formats.base import Packed, WeightFormat
from spaces.quantization.formats.packing.groups import Weight
from spaces.quantization.formats.shift_add import bits_by_share, layer_score
from spaces.quantization.formats.tuned_codes import tuned
from spaces.quantization.plan.source import Source
from spaces.stages.stage import StageContext

LEAST = 1e-6  # of the mean importance: an input that is always 0 still has a weight


@dataclass(frozen=True)
class Tuning:
    """PV-tuning of codes.

    Attributes:
        steps: Steps; 0 for no tuning.
        moments: Layer name to the second moments of its inputs, `(n_inputs, n_inputs)`; other layers are not tuned.
    """

    steps: int = 0
    moments: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, source: Source, names: Iterable[str], steps: int, n_images: int, context: StageContext
    ) -> "Tuning":
        """Returns the tuning of the Gemms and MatMuls among some layers.

        Raises:
            StageError: There is no calibration data.
        """
        wanted = set(names) if steps else set()
        inputs = {x.name: x.input for x in source.network.layers if x.name in wanted and is_product(x)}
        moments = input_moments(source.artifact, tuple(inputs.values()), n_images, context) if inputs else {}
        return cls(steps, {name: moments[tensor] for name, tensor in inputs.items()})

    def key(self, name: str) -> tuple[object, ...]:
        """What a layer's codes depend on."""
        return (self.steps, self.moments[name].tobytes()) if name in self.moments else ()

    def tuned(self, name: str, packed: Packed, weight: Weight) -> Packed:
        """Returns a layer's codes after tuning."""
        return tuned(packed, weight, self.moments[name], self.steps) if name in self.moments else packed


def is_product(layer: Layer) -> bool:
    """Whether a layer is the product of a matrix with its input."""
    return layer.op_type in ("Gemm", "MatMul") and len(layer.weight_shape) == 2


def packed_weights(
    source: Source,
    formats: Mapping[str, WeightFormat],
    importance: Mapping[str, Weight],
    tuning: Tuning,
    context: StageContext,
) -> dict[str, Packed]:
    """Returns the packed weights by layer name.

    Args:
        source: The float model.
        formats: Layer name to format.
        importance: Layer name to how much an error of each weight matters; see `WeightFormat.encode`.
        tuning: How codes are tuned.
        context: The cache.

    Raises:
        StageError: A weight does not fit its format.
    """
    axes = {layer.name: layer.weight_axis_out for layer in source.network.layers}
    found = {}
    for name, form in formats.items():
        weight, axis, matters = source.weights[name], axes[name], importance.get(name)
        data = None if matters is None else matters.tobytes()
        key = digest_of(
            type(form).__module__, form, weight.tobytes(), weight.shape, axis, data, *tuning.key(name)
        )

        def build() -> bytes:
            return tuning.tuned(name, form.encode(weight, axis, matters), weight).blob  # noqa: B023

        blob = context.cache.blob(f"packed-{key}", build)
        found[name] = Packed(form, blob, axis, form.decode(blob, weight.shape, axis))
    return found


def input_importance(
    source: Source, formats: Mapping[str, WeightFormat], n_images: int, context: StageContext
) -> dict[str, Weight]:
    """Returns the mean square of what each weight is multiplied with, by layer name, relative to the layer's mean.

    A ConvTranspose, a MatMul with a weight of more than two axes, and LSTM, GRU and RNN have none.

    Raises:
        StageError: There is no calibration data.
    """
    layers = {x.name: x for x in source.network.layers if x.name in formats and _has_input_axis(x)}
    axes = {x.input: 1 if x.op_type == "Conv" else -1 for x in layers.values()}
    wanted = Wanted(tuple(axes), tuple(axes.items()))
    moments = Statistics(source.artifact, wanted, n_images, context).channel_second_moments() if axes else {}
    return {name: _by_weight(layer, moments[layer.input]) for name, layer in layers.items()}


def with_fewer_bits(
    source: Source,
    formats: Mapping[str, WeightFormat],
    bits: int,
    share: float,
    importance: Mapping[str, Weight],
) -> dict[str, WeightFormat]:
    """Returns the formats with one bit less in the layers of the lowest scores (ShiftAddLLM, section 4.3).

    Args:
        source: The float model.
        formats: Layer name to format, all of `bits`.
        bits: Their bits.
        share: Share of the weights that get one bit less.
        importance: Of the layers' weights, for the scores.
    """
    weights = {name: source.weights[name] for name in formats}
    scores = {name: layer_score(weight, importance.get(name)) for name, weight in weights.items()}
    sizes = {name: weight.size for name, weight in weights.items()}
    widths = bits_by_share(scores, sizes, {bits - 1: share, bits: 1 - share})
    return {name: form.adjusted({"weight_bits": widths[name]}) for name, form in formats.items()}


def _has_input_axis(layer: Layer) -> bool:
    return layer.op_type == "Conv" or is_product(layer)


def _by_weight(layer: Layer, moments: NDArray[np.float64]) -> Weight:
    """Returns the moments of a layer's input channels, `(n_in,)`, in the weight's shape."""
    relative = (moments / max(float(moments.mean()), 1e-30)).clip(LEAST).astype(np.float32)
    shape = layer.weight_shape
    if layer.op_type != "Conv":
        along = relative if layer.weight_axis_out == 0 else relative[:, None]
        return np.ascontiguousarray(np.broadcast_to(along, shape))
    groups = relative.reshape(-1, shape[1])  # (n_groups, n_in / n_groups)
    rows = np.repeat(groups, shape[0] // len(groups), axis=0)
    return np.ascontiguousarray(np.broadcast_to(rows.reshape(*rows.shape, *[1] * (len(shape) - 2)), shape))

"""The contents of a template's slots: one candidate's numbers, as onnxruntime's tool writes them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spaces.models.onnx import protobuf_encoding as protobuf
from spaces.quantization.plan.int32_biases import Biases
from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.source import Source
from spaces.quantization.qdq.ort_adapter import quant_type
from spaces.quantization.schemes.integers import stored_bytes, stored_zero_point, weight_integers
from spaces.quantization.schemes.recent import Recent
from spaces.quantization.schemes.scheme import Grid

MAX_INTEGER_BYTES = 128 * 2**20
MAX_BIAS = 2**30  # with format=qoperator the tool rescales a weight whose bias comes near the int32 limit

FloatBiases = Mapping[str, NDArray[np.float32]]
WeightBytes = dict[str, bytes]
WeightCache = Recent[tuple[object, ...], WeightBytes]


def weight_cache() -> WeightCache:
    """Returns an empty LRU cache of quantized weights."""
    return Recent(MAX_INTEGER_BYTES, lambda parts: sum(map(len, parts.values())))


class UnlikeToolError(Exception):
    """A filled template would differ from the tool's file."""


@dataclass(frozen=True)
class Slot:
    """One initializer whose content follows from the grids.

    Attributes:
        kind: `activation`, `weight` or `bias` with a part, e.g. `weight scale`; or `float bias`.
        name: Name of the tensor, the layer or the float bias.
    """

    kind: str
    name: str


@dataclass(frozen=True)
class Numbers:
    """The numbers of one candidate, with which a template is filled.

    Attributes:
        source: The float model.
        plan: The grid of every tensor.
        settings: The knobs.
        biases: Float biases by name, corrected if bias correction is on.
        cache: Cache of quantized weights; None to compute them always.
    """

    source: Source
    plan: Plan
    settings: Settings
    biases: Mapping[str, NDArray[np.float32]]
    cache: WeightCache | None = None

    def contents(self, biases: Biases, weights: Iterable[str]) -> dict[str, Callable[[str], bytes]]:
        """Returns, for each kind of slot, a function from the slot's name to its content.

        Args:
            biases: The int32 biases.
            weights: Names of the layers whose weights are quantized.

        Raises:
            UnlikeToolError: The tool would treat these numbers differently.
        """
        integers, scales, largest = biases.contents(self.plan, self.biases)
        if largest >= MAX_BIAS and self.settings.format == "qoperator":
            raise UnlikeToolError
        activations, zero_bytes = self.plan.activations, self._zero_bytes
        stored = {name: self._weight(name) for name in weights}
        return {
            "activation scale": lambda name: activations[name].scale.tobytes(),
            "activation zero_point": lambda name: zero_bytes[int(activations[name].zero_point)],
            "weight quantized": lambda name: stored[name]["quantized"],
            "weight scale": lambda name: stored[name]["scale"],
            "weight zero_point": lambda name: stored[name]["zero_point"],
            "bias quantized": integers.__getitem__,
            "bias scale": scales.__getitem__,
            "float bias": lambda name: self.biases[name].tobytes(),
        }

    @cached_property
    def _zero_bytes(self) -> dict[int, bytes]:
        bits, stored = self.settings.activation_bits, self.settings.activation_type
        zeros = {int(grid.zero_point): grid for grid in self.plan.activations.values()}
        return {
            zero: stored_bytes(stored_zero_point(grid, stored), bits, stored) for zero, grid in zeros.items()
        }

    def _weight(self, name: str) -> WeightBytes:
        grid, stored = self.plan.weights[name], self.settings.weight_type
        if self.cache is None:
            return _weight_bytes(name, self.source.weights[name], grid, stored)
        key = (self.source.key, name, stored, *grid.key)
        return self.cache.get(key, lambda: _weight_bytes(name, self.source.weights[name], grid, stored))


def _weight_bytes(name: str, weight: NDArray[np.float32], grid: Grid, stored: str) -> WeightBytes:
    """Returns the three initializers of a quantized weight, as serialized fields of the graph."""
    from onnx import TensorProto

    kind = quant_type(grid.stored_bits, stored).tensor_type
    zero = stored_bytes(stored_zero_point(grid, stored), grid.stored_bits, stored)
    parts = {
        "quantized": (weight.shape, kind, weight_integers(weight, grid, stored)),
        "scale": (grid.scale.shape, TensorProto.FLOAT, grid.scale.tobytes()),
        "zero_point": (grid.scale.shape, kind, zero),
    }
    return {
        part: initializer_head(f"{name}_{part}", shape, kind, len(data)) + data
        for part, (shape, kind, data) in parts.items()
    }


def initializer_head(name: str, shape: tuple[int, ...], kind: int, n_bytes: int) -> bytes:
    """Returns an initializer, as a serialized field of the graph, up to its raw data.

    Args:
        name: Its name.
        shape: Its shape.
        kind: The element type, one of `onnx.TensorProto`'s.
        n_bytes: Size of the raw data.
    """
    from onnx import TensorProto

    tensor = bytes(TensorProto(dims=shape, data_type=kind, name=name).SerializeToString())
    tensor += protobuf.head(protobuf.RAW_DATA, n_bytes)
    return protobuf.head(protobuf.INITIALIZER, len(tensor) + n_bytes) + tensor

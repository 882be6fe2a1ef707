"""What goes into the holes of a skeleton: the numbers of one candidate, as onnxruntime's tool writes them."""

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

MOST_INTEGER_BYTES = 128 * 2**20
MOST_BIAS = 2**30  # in operators' form the tool rescales a weight whose bias comes near the end of int32

FloatBiases = Mapping[str, NDArray[np.float32]]
WeightBytes = dict[str, bytes]
WeightMemory = Recent[tuple[object, ...], WeightBytes]


def weight_memory() -> WeightMemory:
    """Returns room for the stored weights that were used last."""
    return Recent(MOST_INTEGER_BYTES, lambda found: sum(map(len, found.values())))


class UnlikeToolError(Exception):
    """A skeleton would hold other numbers than the tool's file."""


@dataclass(frozen=True)
class Place:
    """One initializer that follows from the grids.

    Attributes:
        kind: `activation`, `weight` or `bias`, and which of its parts; or `float bias`.
        name: The tensor, the layer or the float bias.
    """

    kind: str
    name: str


@dataclass(frozen=True)
class Numbers:
    """The numbers of one candidate.

    Attributes:
        source: The float model.
        plan: The grid of every tensor.
        settings: The knobs.
        biases: Float bias of every layer that has one, corrected if that is asked for.
        memory: Stored weights that are known; None to look nothing up.
    """

    source: Source
    plan: Plan
    settings: Settings
    biases: Mapping[str, NDArray[np.float32]]
    memory: WeightMemory | None = None

    def contents(self, biases: Biases, weights: Iterable[str]) -> dict[str, Callable[[str], bytes]]:
        """Returns what says, for each kind of hole, what goes in.

        Args:
            biases: The int32 biases.
            weights: The layers whose weights are integers.

        Raises:
            UnlikeToolError: The tool would do something else with such numbers.
        """
        integers, scales, largest = biases.contents(self.plan, self.biases)
        if largest >= MOST_BIAS and self.settings.format == "qoperator":
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
        if self.memory is None:
            return _weight_bytes(name, self.source.weights[name], grid, stored)
        key = (self.source.artifact.digest, name, stored, *grid.key)
        return self.memory.get(key, lambda: _weight_bytes(name, self.source.weights[name], grid, stored))


def _weight_bytes(name: str, weight: NDArray[np.float32], grid: Grid, stored: str) -> WeightBytes:
    """Returns a weight's three initializers, as fields of the graph."""
    from onnx import TensorProto

    kind = quant_type(grid.bits, stored).tensor_type
    zero = stored_bytes(stored_zero_point(grid, stored), grid.bits, stored)
    parts = {
        "quantized": (weight.shape, kind, weight_integers(weight, grid, stored)),
        "scale": (grid.scale.shape, TensorProto.FLOAT, grid.scale.tobytes()),
        "zero_point": (grid.scale.shape, kind, zero),
    }
    return {
        part: before_numbers(f"{name}_{part}", shape, kind, len(data)) + data
        for part, (shape, kind, data) in parts.items()
    }


def before_numbers(name: str, shape: tuple[int, ...], kind: int, n_bytes: int) -> bytes:
    """Returns the beginning of an initializer, as a field of the graph, up to its numbers.

    Args:
        name: Its name.
        shape: Its shape.
        kind: The element type, one of `onnx.TensorProto`'s.
        n_bytes: Bytes of the numbers.
    """
    from onnx import TensorProto

    tensor = bytes(TensorProto(dims=shape, data_type=kind, name=name).SerializeToString())
    tensor += protobuf.head(protobuf.RAW_DATA, n_bytes)
    return protobuf.head(protobuf.INITIALIZER, len(tensor) + n_bytes) + tensor

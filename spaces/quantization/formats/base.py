"""What a weight format is: it packs a float weight into bytes, and returns from them the weight that a network computes with."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

from spaces.knob_spec import WEIGHTS_ALONE, Technique, cited
from spaces.quantization.formats.packing.checks import check_options
from spaces.quantization.formats.packing.groups import GridWeight, Weight


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight in its stored form.

    Attributes:
        format: The format, which decodes the blob.
        blob: All that the weight is decoded from besides format, shape and axis: codes, scales, zero points, codebooks,
            positions of outliers. There is no header: format, shape and axis are the file's metadata.
        axis: The output-channel axis.
        values: The weight that the quantizer chose, float32: what `decoded()` has to return bit by bit.
    """

    format: "WeightFormat"
    blob: bytes
    axis: int
    values: Weight

    @property
    def packed_bytes(self) -> int:
        """Stored bytes."""
        return len(self.blob)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, everything included."""
        return 8 * len(self.blob) / max(self.values.size, 1)

    def decoded(self) -> Weight:
        """Returns the weight that the blob stores, same shape as `values`."""
        return self.format.decode(self.blob, self.values.shape, self.axis)


class WeightFormat(ABC):
    """A way to store weights. Formats are frozen dataclasses whose fields are their options.

    `decode(encode(w).blob, w.shape)` equals `encode(w).values` bit by bit, and `len(encode(w).blob)` equals
    `n_bytes(w.shape)`: the size never depends on the values.

    Attributes:
        name: The config's name of the format.
        knobs: Knobs of the quantize stage that set a field -> the field; `group` stands for `group_size`, or else
            `granularity`, and `symmetric` for the scheme.
        uses_importance: Whether `importance` weights the squared errors, so that the inputs' second moments lower a layer's error.
    """

    name: ClassVar[str]
    knobs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    uses_importance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raises ConfigError if an option has no such value."""
        check_options(self, self.name)

    @property
    def technique(self) -> Technique:
        """What people choose it by."""
        return Technique("quantization", paper=cited(type(self)), places=WEIGHTS_ALONE)

    def adjusted(self, values: Mapping[str, Any]) -> Self:
        """Returns the format with the fields that knobs set.

        Args:
            values: Knob to value; all others are ignored.

        Raises:
            ConfigError: An option has no such value.
        """
        chosen = {name: values[knob] for knob, name in self.knobs.items() if knob in values}
        return replace(self, **chosen)  # type: ignore[type-var]  # formats are dataclasses

    @abstractmethod
    def encode(self, weight: Weight, axis: int = 0, importance: Weight | None = None) -> Packed:
        """Quantizes and packs a weight.

        Args:
            weight: Any shape with at least one axis.
            axis: The output-channel axis; the other axes, in their order, are a channel's inputs.
            importance: How much an error of each weight matters, same shape, at least 0; each format says what it does with
                it. None takes all as equal.

        Raises:
            StageError: A weight is not finite, or too large for the format.
        """

    @abstractmethod
    def decode(self, blob: bytes, shape: tuple[int, ...], axis: int = 0) -> Weight:
        """Returns the weight, float32.

        Raises:
            InputError: The blob has another size than this format's for that shape.
        """

    @abstractmethod
    def n_bytes(self, shape: tuple[int, ...], axis: int = 0) -> int:
        """Returns the bytes of a packed weight of this shape."""

    def on_grid(self, packed: Packed) -> GridWeight | None:
        """Returns the integers of a packed weight, as ONNX's DequantizeLinear takes them.

        None if the format's weights lie on no uniform grid: then plain onnxruntime can only compute with the decoded floats.
        """
        del packed
        return None

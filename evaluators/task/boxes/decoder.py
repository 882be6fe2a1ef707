"""The interface of decoders: a decoder turns a detection network's raw outputs into boxes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.task.boxes.detections import Detections
from spaces.errors import ConfigError, InputError
from spaces.stages.inputs import Inputs

RawOutputs = Mapping[str, NDArray[Any]]
SOLE = "output"  # name of the raw output where only one is judged


class Decoder(ABC):
    """Turns raw outputs into boxes, scores and classes of each image.

    Attributes:
        names: The outputs that it needs, by their names in the ONNX file; empty: the one that the task judges.
    """

    names: Sequence[str] = ()

    @abstractmethod
    def decode(self, outputs: RawOutputs) -> list[Detections]:
        """Returns the detections of each image, in pixels of the network's input.

        Args:
            outputs: Arrays `(n, ...)` by name; where only one output is judged, it is the only one, of any name.

        Raises:
            InputError: An output is missing or has another shape.
        """

    def n_classes(self, outputs: RawOutputs) -> int | None:
        """Returns how many classes raw outputs tell apart; None if their shapes do not say that."""
        return None


class Decoding:
    """A decoder that remembers the last batch, because several metrics need its boxes.

    Args:
        decoder: The decoder.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._last: tuple[Inputs, list[Detections]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"decoder": self.decoder, "_last": None}

    def __call__(self, outputs: Inputs) -> list[Detections]:
        """Returns the detections of each image of a batch of outputs, `(b, ...)` or such arrays by name."""
        if self._last is None or self._last[0] is not outputs:
            self._last = (outputs, self.decoder.decode(by_name(outputs)))
        return self._last[1]


def by_name(outputs: Inputs) -> RawOutputs:
    """Returns outputs as a mapping; an only one gets the name `output`."""
    return outputs if isinstance(outputs, Mapping) else {SOLE: outputs}


def sole_output(outputs: RawOutputs, ndim: int, layout: str) -> NDArray[Any]:
    """Returns the only raw output.

    Args:
        outputs: The raw outputs by name.
        ndim: The number of axes that it must have.
        layout: What they mean, for the message.

    Raises:
        InputError: There are several, or it has another number of axes.
    """
    (name, array), *others = outputs.items()
    if others:
        raise InputError(
            f"this decoder takes one output, {layout}, but {', '.join(outputs)} are given (task.output)"
        )
    if array.ndim != ndim:
        raise InputError(f"the output {name} has shape {array.shape}, but the decoder takes {layout}")
    return array


def check_share(name: str, value: float | None) -> None:
    """Raises ConfigError unless a setting of a decoder is None or lies in [0, 1]."""
    if value is not None and not 0 <= value <= 1:
        raise ConfigError(f"task.decoder.{name} must lie in 0..1, not {value!r}")


def check_count(name: str, value: int) -> None:
    """Raises ConfigError unless a setting of a decoder is at least 1."""
    if value < 1:
        raise ConfigError(f"task.decoder.{name} must be at least 1, not {value!r}")


def sigmoid(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """Returns 1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x.astype(np.float64))))

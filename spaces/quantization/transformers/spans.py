"""Ranges of the functions' inputs, from calibration examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.quantization.calibration.activations import activations
from spaces.quantization.transformers.graph_index import FloatFunction
from spaces.stages.artifact import Artifact
from spaces.stages.cache import Arrays
from spaces.stages.stage import StageContext

SIMULATED = (
    "integer_functions=true has no kernel: the file computes exactly what integer Softmax, GELU and layer normalization give, in standard operators "
    "(simulated), and gets no latency"
)
Span = tuple[float, float, float]
"""Smallest value, largest value, and, of a Softmax, the smallest of the largest values along its axis, else the smallest value."""


@dataclass(frozen=True)
class IntegerFunctions:
    """The functions of a candidate that become integer.

    Attributes:
        spans: Function to the span of its input.
        notes: What is simulated, and which functions stay float.
    """

    spans: Mapping[FloatFunction, Span]
    notes: tuple[str, ...]


def integer_functions(
    artifact: Artifact, functions: Sequence[FloatFunction], n_images: int, context: StageContext
) -> IntegerFunctions:
    """Returns the functions whose inputs have finite spans over the calibration examples.

    Of a Softmax's input only the largest values have to be finite, since a mask is not.

    Args:
        artifact: The float model.
        functions: Its functions.
        n_images: Number of calibration examples.
        context: Calibration split and cache.

    Raises:
        StageError: There is no calibration data.
    """
    found = zip(functions, _spans(artifact, functions, n_images, context), strict=True)
    spans = {function: span for function, span in found if np.isfinite(span[1:]).all()}
    floats = [f.name for f in functions if f not in spans]
    return IntegerFunctions(
        spans,
        (
            *([SIMULATED] if spans else []),
            *([f"Left float: {', '.join(floats)}: the input is not finite"] if floats else []),
        ),
    )


def _spans(
    artifact: Artifact, functions: Sequence[FloatFunction], n_images: int, context: StageContext
) -> list[Span]:
    split = context.calibration
    if not split:
        raise StageError(
            "quantize.integer_functions needs calibration examples, but the stage was given none"
        )

    def build() -> Arrays:
        names = tuple(dict.fromkeys(f.input for f in functions))
        spans = np.full((len(functions), 3), [np.inf, -np.inf, np.inf])
        for batch in activations(artifact, names, split, min(n_images, len(split))):
            for i, function in enumerate(functions):
                low, high, least = _span(batch[function.input], function)
                spans[i] = (
                    np.minimum(spans[i, 0], low),
                    np.maximum(spans[i, 1], high),
                    np.minimum(spans[i, 2], least),
                )
        return {"spans": spans}

    key = digest_of(artifact.digest, split.digest, n_images, *(repr(f) for f in functions))
    found = context.cache.arrays(f"function-spans-{key}", build)["spans"].tolist()
    return [(row[0], row[1], row[2]) for row in found]


def _span(values: NDArray[np.float32], function: FloatFunction) -> Span:
    if not values.size or np.isnan(values).any():
        return np.nan, np.nan, np.nan
    if function.kind != "Softmax":
        low, high = float(values.min()), float(values.max())
        return low, high, low
    largest = values.max(axis=function.axes)
    return float(values.min()), float(largest.max()), float(largest.min())

"""Second moments of the inputs of matrix products, between all pairs of channels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.quantization.calibration.activations import activations
from spaces.stages.artifact import Artifact
from spaces.stages.stage import StageContext

Floats = NDArray[np.float64]


def input_moments(
    artifact: Artifact, tensors: Sequence[str], n_images: int, context: StageContext
) -> dict[str, Floats]:
    """Returns the mean of `x x^T` over the rows of each tensor, `(n_channels, n_channels)`; channels are its last axis.

    Args:
        artifact: The float ONNX model.
        tensors: Names of activations.
        n_images: Number of calibration examples; all, if there are fewer.
        context: Calibration split and cache.

    Raises:
        StageError: There is no calibration data.
    """
    split = context.calibration
    if not split:
        raise StageError("quantization needs calibration examples, but the stage was given none")
    names, n_images = tuple(dict.fromkeys(tensors)), min(n_images, len(split))

    def build() -> dict[str, Floats]:
        sums, n_rows = dict.fromkeys(names, np.zeros(())), dict.fromkeys(names, 0)
        for batch in activations(artifact, names, split, n_images):
            for name in names:
                rows = batch[name].reshape(-1, batch[name].shape[-1])
                sums[name] = sums[name] + (rows.T @ rows).astype(np.float64)
                n_rows[name] += len(rows)
        return {str(i): sums[name] / n_rows[name] for i, name in enumerate(names)}

    key = digest_of(artifact.digest, split.digest, n_images, names)
    found = context.cache.arrays(f"input-moments-{key}", build)
    return {name: np.asarray(found[str(i)], np.float64) for i, name in enumerate(names)}

"""Activations that have no range for a grid: those that are not finite, or empty, or scalars, or masked.

This is decided on the first calibration examples, once per network: nodes that read or write them stay float.
"""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.quantization.calibration.activations import activations
from spaces.stages.artifact import Artifact, Split
from spaces.stages.cache import Arrays
from spaces.stages.stage import StageContext

N_EXAMPLES = 16  # masks, paddings and empty slices are the same for all examples
EMPTY, SCALAR, INFINITE = "is empty", "is a scalar without a batch axis", "is not finite"
MASKED = "holds a mask beside values that are smaller than one step of its 8-bit grid"
PROBLEMS = ("", EMPTY, SCALAR, INFINITE, MASKED)
STEPS = 256  # of an 8-bit grid
LEAST_MASK = 1e3  # masks are negative, so that a softmax turns them into zeros
MASK_SPREAD = 0.9  # a mask's values are at least this share of the largest one


def unfit_tensors(artifact: Artifact, tensors: Sequence[str], context: StageContext) -> dict[str, str]:
    """Runs the float network on a few examples and returns, by tensor, what calibration cannot take about it.

    Args:
        artifact: The float ONNX model.
        tensors: Names of activations.
        context: Calibration data, and the cache. Examples that do not fit the model are not reported here.
    """
    split = context.calibration
    if not split:
        return {}

    def build() -> Arrays:
        found = _problems(artifact, tensors, split)
        return {"problems": np.array([PROBLEMS.index(problem) for problem in found], np.int64)}

    key = digest_of(artifact.digest, split.digest, *tensors, N_EXAMPLES)
    codes = context.cache.arrays(f"unfit-{key}", build)["problems"].tolist()
    return {t: PROBLEMS[code] for t, code in zip(tensors, codes, strict=True) if code}


def _problems(artifact: Artifact, tensors: Sequence[str], split: Split) -> list[str]:
    """Returns what is wrong with each tensor: an empty string for nothing."""
    found: dict[str, set[str]] = {t: set() for t in tensors}
    try:
        with closing(activations(artifact, tensors, split, min(N_EXAMPLES, len(split)))) as batches:
            for batch in batches:
                for tensor in tensors:
                    found[tensor].add(_problem(batch[tensor]))
    except StageError:  # calibration itself says how the examples do not fit
        return [""] * len(tensors)
    return [_worst(found[t]) for t in tensors]


def _worst(problems: set[str]) -> str:
    """Returns what is wrong with a tensor, from what is wrong with it in each batch: a mask is in all of them."""
    if problems == {MASKED}:
        return MASKED
    return next((p for p in (EMPTY, SCALAR, INFINITE) if p in problems), "")


def _problem(values: NDArray[np.float32]) -> str:
    if not values.size:
        return EMPTY
    if not values.ndim:
        return SCALAR
    if not np.isfinite([values.min(), values.max()]).all():
        return INFINITE
    return MASKED if _is_masked(values) else ""


def _is_masked(values: NDArray[np.float32]) -> bool:
    """Whether all values are either a mask's or would be rounded to zero because of it."""
    mask = -float(values.min())
    if mask < LEAST_MASK:
        return False
    others = np.abs(values[values > -MASK_SPREAD * mask])
    return bool(others.size) and 0 < float(others.max()) < mask / STEPS

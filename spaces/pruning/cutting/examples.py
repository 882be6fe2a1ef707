"""The examples for criteria, block measures, mask tuning and BatchNorm re-estimation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaces.errors import StageError
from spaces.stages.artifact import Split
from spaces.stages.inputs import packed
from spaces.stages.stage import StageContext

BATCH_SIZE = 256


@dataclass(frozen=True)
class Examples:
    """Some examples of a split.

    Attributes:
        inputs: `(n, *input.shape)` float32.
        labels: `(n,)` int64; None if they have none, or are not from the train split.
        digest: Digest of the split, the number of examples, and whether they have labels.
    """

    inputs: Tensor
    labels: Tensor | None
    digest: str


def examples_of(context: StageContext, n: int, knob: str) -> Examples:
    """Returns the first examples of the train split, or of the calibration split if there is none.

    Args:
        context: The splits.
        n: How many examples; fewer if the split has fewer.
        knob: The knob that needs them, for the error message.

    Raises:
        StageError: Neither split has examples.
    """
    split = source(context)
    if split is None:
        raise StageError(f"{knob} needs examples, but there is neither a train nor a calibration split")
    batches = list(split.batches(min(n, BATCH_SIZE), limit=n))
    joined = np.concatenate([packed(x) for x, _ in batches])
    # contiguous also if the split moves axes: see `spaces.recovery.training.training`
    inputs = torch.from_numpy(np.ascontiguousarray(joined, np.float32))
    labels = np.concatenate([y for _, y in batches])
    has_labels = split is context.train and are_classes(labels)
    found = torch.from_numpy(labels) if has_labels else None
    return Examples(inputs, found, f"{split.digest}-{len(inputs)}-{has_labels}")


def are_classes(labels: NDArray[Any]) -> bool:
    """Whether all examples have a class as label."""
    return labels.dtype == np.int64 and labels.ndim == 1 and bool((labels >= 0).all())


def source(context: StageContext) -> Split | None:
    """Returns the split that examples are taken from; None if neither split has any."""
    splits = (context.train, context.calibration)
    return next((split for split in splits if split is not None and len(split)), None)


def has_labels(context: StageContext) -> bool:
    """Whether the first example of the train split has a class as label."""
    split = source(context)
    if split is None or split is not context.train:
        return False
    _, labels = next(iter(split.batches(1, limit=1)))
    return are_classes(labels)

"""Writes a live torch network and its data as the files that a study reads: an ONNX file and an .npz file."""

import copy
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.errors import ConfigError
from spaces.models.export import ExportStage
from spaces.stages.artifact import InputSpec
from spaces.stages.cache import Cache, write_atomic
from spaces.stages.stage import StageContext
from spaces.stages.torch_artifact import torch_artifact

if TYPE_CHECKING:
    import torch

MODEL, DATA = "network.onnx", "data.npz"


def write_live(module: "torch.nn.Module", loader: Iterable[Any], folder: Path) -> tuple[Path, Path]:
    """Writes both files and returns their paths. The module is copied, and left as it is.

    Args:
        module: A network with one input.
        loader: Yields batches `(inputs, labels)`, or inputs alone, e.g. a `torch.utils.data.DataLoader`; all are held in memory.
        folder: Where the files go.

    Raises:
        ConfigError: The loader yields something else, or nothing.
        StageError: The network cannot be exported.
    """
    examples = _examples(loader)
    inputs = examples["x"]
    network = copy.deepcopy(module).cpu().eval()
    artifact = torch_artifact(network, InputSpec(inputs.shape[1:], dtype=str(inputs.dtype)))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
    stored = BytesIO()
    np.savez(stored, **examples)  # type: ignore[arg-type]  # of its further keywords
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / MODEL, exported.onnx_bytes)
    write_atomic(folder / DATA, stored.getvalue())
    return folder / MODEL, folder / DATA


def _examples(loader: Iterable[Any]) -> dict[str, NDArray[Any]]:
    """Returns the inputs `x` and labels `y` of all batches, each as one array; no labels if batches have none."""
    batches = [_batch(batch) for batch in loader]
    if not batches:
        raise ConfigError("loader yields no batch")
    if len({len(batch) for batch in batches}) > 1:
        raise ConfigError(
            "loader yields batches with labels and batches without; either all have them or none"
        )
    return {
        name: np.concatenate(parts) for name, parts in zip("xy", zip(*batches, strict=True), strict=False)
    }


def _batch(batch: Any) -> list[NDArray[Any]]:
    """Returns a batch as arrays: inputs, and labels if there are any."""
    given = batch if isinstance(batch, list | tuple) else [batch]
    if not 1 <= len(given) <= 2 or not all(hasattr(part, "__array__") for part in given):
        raise ConfigError(
            f"loader must yield batches (inputs, labels), or inputs alone, but yields {type(batch).__name__}"
            + (f" of {', '.join(type(part).__name__ for part in given)}" if given is batch else "")
        )
    parts = [np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in given]
    if parts[0].ndim < 2 or len(parts[-1]) != len(parts[0]):
        shapes = " and ".join(str(part.shape) for part in parts)
        raise ConfigError(
            f"loader must yield batches (n, ...) of as many labels as inputs, but yields shapes {shapes}"
        )
    return parts

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
        loader: Yields batches `(inputs, labels)`, e.g. a `torch.utils.data.DataLoader`; all of them are held in memory.
        folder: Where the files go.

    Raises:
        ConfigError: The loader yields something else, or nothing.
        StageError: The network cannot be exported.
    """
    inputs, labels = _examples(loader)
    network = copy.deepcopy(module).cpu().eval()
    artifact = torch_artifact(network, InputSpec(inputs.shape[1:], dtype=str(inputs.dtype)))
    exported = ExportStage().apply(artifact, {}, StageContext(None, Cache()))
    stored = BytesIO()
    np.savez(stored, x=inputs, y=labels)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / MODEL, exported.onnx_bytes)
    write_atomic(folder / DATA, stored.getvalue())
    return folder / MODEL, folder / DATA


def _examples(loader: Iterable[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the inputs and labels of all batches, each as one array."""
    inputs: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    for batch in loader:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise ConfigError(
                f"loader must yield batches (inputs, labels), but yields {type(batch).__name__}"
            )
        x, y = (np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in batch)
        if x.ndim < 2 or len(x) != len(y):
            raise ConfigError(
                f"loader must yield batches of as many labels as inputs, but yields shapes {x.shape} and {y.shape}"
            )
        inputs.append(x)
        labels.append(y)
    if not inputs:
        raise ConfigError("loader yields no batch")
    return np.concatenate(inputs), np.concatenate(labels)

"""The artifact that a stage returns: a torch module or an ONNX model, with its provenance."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import InputError

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

Kind = Literal["torch", "onnx"]


@dataclass(frozen=True)
class InputSpec:
    """The one input of a model.

    Attributes:
        shape: Shape of one example, without the batch axis, e.g. `(3, 32, 32)`.
        name: The input's name in the ONNX graph.
    """

    shape: tuple[int, ...]
    name: str = "input"


@dataclass(frozen=True)
class Step:
    """One entry of an artifact's provenance: a stage and the knob values that it applied."""

    stage: str
    values: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(cls, stage: str, values: Mapping[str, object]) -> "Step":
        """Returns the entry, sorted by knob name; per-layer values become a sorted tuple of pairs."""
        plain = {k: tuple(sorted(v.items())) if isinstance(v, dict) else v for k, v in values.items()}
        return cls(stage, tuple(sorted(plain.items(), key=lambda item: item[0])))


@dataclass(frozen=True)
class Artifact:
    """A torch module or a serialized ONNX model.

    Attributes:
        kind: `torch` or `onnx`.
        model: The module (in eval mode), or the serialized `ModelProto`.
        input: The model's input.
        digest: Digest of the model's content.
        provenance: The steps that led here, oldest first.
        notes: Details by stage name, JSON-serializable, that explain the artifact in records and reports.
    """

    kind: Kind
    model: "torch.nn.Module | bytes"
    input: InputSpec
    digest: str
    provenance: tuple[Step, ...] = field(default=())
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def onnx(
        cls, model: "bytes | ModelProto", spec: InputSpec, provenance: tuple[Step, ...] = ()
    ) -> "Artifact":
        """Wraps an ONNX model; the digest is computed over its serialized bytes."""
        data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
        return cls("onnx", data, spec, digest_of(data), provenance)

    @property
    def onnx_bytes(self) -> bytes:
        """The serialized model. Raises InputError if this is not an ONNX artifact."""
        if not isinstance(self.model, bytes):
            raise InputError(f"an ONNX model is needed here, but the artifact is a {self.kind} model")
        return self.model

    def proto(self) -> "ModelProto":
        """Parses the ONNX model; each call returns a new object that the caller may change."""
        import onnx

        return onnx.load_model_from_string(self.onnx_bytes)


class Split(Protocol):
    """One split of a task's data, as model inputs. Implementations must be picklable, with small pickles."""

    @property
    def digest(self) -> str:
        """Digest of the examples and of their transform to inputs."""

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, limit: int | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yields inputs `(b, *input.shape)` float32 and labels `(b,)` int64, always in the same order.

        Args:
            batch_size: Maximum number of examples per batch.
            limit: Stop after the first `limit` examples; None takes all.
        """

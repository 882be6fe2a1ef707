"""The artifact that a stage returns: a torch module or an ONNX model, with its provenance."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import InputError
from spaces.stages.inputs import Inputs, cast_to
from spaces.stages.output_spec import FIRST_OUTPUT, OutputSpec

if TYPE_CHECKING:
    import torch
    from onnx import GraphProto, ModelProto

Kind = Literal["torch", "onnx"]


@dataclass(frozen=True)
class TensorSpec:
    """One input of a model.

    Attributes:
        shape: Shape of one example, without the batch axis, e.g. `(3, 32, 32)`.
        name: The input's name in the ONNX graph.
        dtype: Its element type, as numpy names it.
    """

    shape: tuple[int, ...]
    name: str = "input"
    dtype: str = "float32"


@dataclass(frozen=True)
class InputSpec(TensorSpec):
    """What a model takes, and which of its outputs is judged.

    The attributes of `TensorSpec` are those of the first input.

    Attributes:
        output: The output that is judged.
        others: The further inputs, in the file's order.
    """

    output: OutputSpec = FIRST_OUTPUT
    others: tuple[TensorSpec, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "InputSpec":
        """Returns the spec whose `dataclasses.asdict`, with lists for tuples, is `fields`."""
        others = tuple(
            TensorSpec(tuple(other["shape"]), other["name"], other["dtype"]) for other in fields["others"]
        )
        output = OutputSpec(**fields["output"])
        return cls(tuple(fields["shape"]), fields["name"], fields["dtype"], output, others)

    @classmethod
    def of_graph(cls, graph: "GraphProto") -> "InputSpec":
        """Returns the inputs of an ONNX graph that are no initializers; an open axis of an example is 0.

        Raises:
            InputError: The graph has no input.
        """
        from onnx import helper

        stored = {initializer.name for initializer in graph.initializer}
        specs = [
            TensorSpec(
                tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)[1:],
                value.name,
                str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            )
            for value in graph.input
            if value.name not in stored
        ]
        if not specs:
            raise InputError("the model has no input")
        first = specs[0]
        return cls(first.shape, first.name, first.dtype, others=tuple(specs[1:]))

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All inputs, in the file's order."""
        return (self, *self.others)

    @property
    def size(self) -> int:
        """Number of values of one example, in all inputs together."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """Shape of one example as a torch network takes it: see `inputs.packed`."""
        return (self.size,) if self.others else self.shape

    @property
    def float_shape(self) -> tuple[int, ...]:
        """Shape of the only input, if that takes floating-point numbers, which can be scaled and shifted; else `()`."""
        return self.shape if not self.others and np.dtype(self.dtype).kind == "f" else ()

    def zeros(self, n: int) -> Inputs:
        """Returns `n` examples of zeros."""
        return self._batch(lambda t: np.zeros((n, *t.shape), t.dtype))

    def noise(self, n: int, seed: int = 0) -> Inputs:
        """Returns `n` random examples: standard normal, or 0 and 1 where an input takes no floating-point numbers."""
        rng = np.random.default_rng(seed)

        def drawn(t: TensorSpec) -> NDArray[Any]:
            shape = (n, *t.shape)
            is_float = np.dtype(t.dtype).kind == "f"
            values = rng.standard_normal(shape) if is_float else rng.integers(0, 2, shape)
            return values.astype(t.dtype)

        return self._batch(drawn)

    def feeds(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """Returns a batch as a session takes it: by name, in the inputs' element types.

        Raises:
            InputError: An input is missing, or a value cannot be represented in its type.
        """
        given = inputs if isinstance(inputs, Mapping) else {self.name: inputs}
        missing = [t.name for t in self.tensors if t.name not in given]
        if missing:
            raise InputError(
                f"the model has the inputs {', '.join(t.name for t in self.tensors)}, but no examples are given for "
                f"{', '.join(missing)}"
            )
        return {t.name: cast_to(t.dtype, given[t.name], t.name) for t in self.tensors}

    def _batch(self, made: Callable[[TensorSpec], NDArray[Any]]) -> Inputs:
        return {t.name: made(t) for t in self.tensors} if self.others else made(self)


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
        input: The model's inputs, and the output that is judged.
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

    def judged_by(self, output: OutputSpec) -> "Artifact":
        """Returns the artifact with another output to be judged."""
        return replace(self, input=replace(self.input, output=output))

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
    """One split of a task's data, as model inputs. Implementations must be picklable, with small pickles.

    A split whose examples are closed loops, or are run several times each, also has a method `rollout`: see `evaluators.runtime.rollout_of`.
    """

    @property
    def digest(self) -> str:
        """Digest of the examples and of their transform to inputs."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[tuple[Inputs, NDArray[Any]]]:
        """Yields inputs and labels `(b, ...)`, always in the same order.

        Labels are `(b,)` int64 where they are classes (below 0 where there are none), objects where they are ragged. Inputs are `(b, *input.shape)`, or such an array for each of several inputs by its name.

        Args:
            batch_size: Maximum number of examples per batch.
            limit: Stop after the first `limit` examples; None takes all.
        """

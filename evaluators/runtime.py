"""Runs ONNX artifacts through onnxruntime; errors say what is wrong with the model."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.integer_kernels import integer_kernels_saturate, with_unsigned_matmuls
from evaluators.metric import Labels, Outputs
from spaces.errors import EvaluationError, InputError, ParedownError
from spaces.models.onnx.ort_session import declared_inputs, ort_session
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import Inputs, each, joined_inputs, n_bytes, n_rows, parts_of
from spaces.stages.output_spec import OutputSpec

if TYPE_CHECKING:
    import onnxruntime as ort

MOST_INPUT_BYTES = 8 * 2**20  # of one batch
BATCH_SIZE, THREADS = 256, 1  # defaults

# Entries of onnxruntime's session configuration (onnxruntime_session_options_config_keys.h).
_UNSIGNED_WEIGHTS = {"session.x64quantprecision": "1"}  # only where 8-bit kernels saturate
_NO_INTEGER_KERNELS = {"session.disable_quant_qdq": "1"}

Batch = tuple[Inputs, Labels]
"""Inputs, and labels `(b, ...)`."""

Rollout = Callable[[Callable[[Inputs], Outputs], Inputs, Labels], Outputs]
"""Returns the outputs for a batch of examples, given a function that runs the model: see `rollout_of`."""

OutputBatch = tuple[Any, Labels]
"""Outputs `(b, ...)`, or such an array for each of several outputs by name; and labels `(b, ...)`."""


def open_session(
    model: bytes, threads: int, optimize: bool = True, entries: Mapping[str, str] | None = None
) -> "ort.InferenceSession":
    """Loads a model on the CPU.

    Args:
        model: The serialized model.
        threads: Threads within an operator; operators run one after the other.
        optimize: False turns graph optimizations off, so that every tensor of the file is computed.
        entries: Entries of onnxruntime's session configuration.

    Raises:
        EvaluationError: onnxruntime cannot load the model.
    """
    try:
        return ort_session(model, threads, optimize, entries=entries)
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise EvaluationError(f"onnxruntime cannot load the model: {_first_line(error)}") from error


def open_exact_session(artifact: Artifact, threads: int) -> "ort.InferenceSession":
    """Loads a model so that 8-bit products are summed exactly, as far as onnxruntime can do that.

    On x86 processors without VNNI its kernels add pairs of products in 16 bits, which saturates, unless one
    operand is made unsigned. Some files do not load or run with that; their quantized tensors are computed in
    floating point.

    Args:
        artifact: An ONNX artifact.
        threads: Threads within an operator.

    Raises:
        EvaluationError: onnxruntime cannot load the model.
    """
    try:
        session = open_session(with_unsigned_matmuls(artifact), threads, entries=_UNSIGNED_WEIGHTS)
        run_session(session, artifact.input.zeros(fixed_batch(session) or 1), [session.get_outputs()[0].name])
        return session
    except EvaluationError:
        return open_session(artifact.onnx_bytes, threads, entries=_NO_INTEGER_KERNELS)


def run_session(
    session: "ort.InferenceSession", inputs: Inputs, names: list[str]
) -> list[NDArray[np.generic]]:
    """Returns the tensors `names` for a batch of inputs, which are cast to the types that the model takes.

    Raises:
        EvaluationError: An input is missing, or cannot be represented in the type that the model takes; or onnxruntime
            cannot run the model on the inputs.
    """
    feeds = _feeds(session, inputs)
    try:
        return list(session.run(names, feeds))
    except ParedownError:  # a time limit that was reached during the run
        raise
    except Exception as error:
        shapes = ", ".join(f"{feeds[i.name].shape} (declared: {i.shape})" for i in session.get_inputs())
        raise EvaluationError(
            f"onnxruntime cannot run the model on inputs of shape {shapes}: {_first_line(error)}"
        ) from error


def _feeds(session: "ort.InferenceSession", inputs: Inputs) -> dict[str, NDArray[Any]]:
    try:
        return declared_inputs(session).feeds(inputs)
    except InputError as error:
        raise EvaluationError(str(error)) from error


def timed_run(session: "ort.InferenceSession", inputs: Inputs) -> Callable[[], object]:
    """Returns a function that runs a session on a batch, cast once, for all outputs; it was run once to see that it works.

    Raises:
        EvaluationError: The inputs do not fit the model, or onnxruntime cannot run it.
    """
    feeds = _feeds(session, inputs)
    names = [output.name for output in session.get_outputs()]
    run_session(session, feeds, names)
    return lambda: session.run(names, feeds)


def fixed_batch(session: "ort.InferenceSession") -> int | None:
    """Returns the only batch size that the model takes; None if it takes any."""
    shape = session.get_inputs()[0].shape
    return shape[0] if shape and isinstance(shape[0], int) else None


class Batches:
    """Caches a split's batches in memory, if they fit, so that examples are not prepared again for every model.

    Args:
        most_bytes: Maximum size of the cached inputs, bytes.
    """

    def __init__(self, most_bytes: int = 256 * 2**20) -> None:
        self._most_bytes = most_bytes
        self._split: Split | None = None
        self._batch_size = 0
        self._rest: Iterator[Batch] = iter(())
        self._kept: list[Batch] = []
        self._labels: tuple[Split, Labels] | None = None

    def __reduce__(self) -> tuple[type["Batches"], tuple[int]]:
        return type(self), (self._most_bytes,)  # the cache is not pickled

    def labels(self, split: Split) -> Labels:
        """Returns the labels of all examples, `(n, ...)`."""
        if self._labels is None or self._labels[0] is not split:
            self._labels = (split, labels_of(split))
        return self._labels[1]

    def of(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """Yields the batches of `split.batches(batch_size)`; the arrays must not be modified."""
        if split is not self._split or batch_size != self._batch_size:
            self._split, self._batch_size = split, batch_size
            self._rest, self._kept = split.batches(batch_size), []
        kept, rest = self._kept, self._rest
        for position in count():
            if position == len(kept):
                batch = next(rest, None)
                if batch is None:
                    return
                if position == 0 and n_bytes(batch[0]) / n_rows(batch[0]) * len(split) > self._most_bytes:
                    self._split = None  # too large for the cache: prepared again on every call
                    yield from chain([batch], rest)
                    return
                kept.append(batch)
            yield kept[position]


def run_batches(
    artifact: Artifact,
    batches: Callable[[int], Iterable[Batch]],
    batch_size: int,
    threads: int,
    exact_sums: bool = False,
    rollout: Rollout | None = None,
) -> Iterator[OutputBatch]:
    """Runs a model over batches of examples.

    Args:
        artifact: An ONNX artifact; only the output that its `input.output` names is used.
        batches: Takes a batch size and yields inputs and labels.
        batch_size: Maximum batch size; a model with a fixed batch size gets that, its last batch padded.
        threads: onnxruntime's threads within an operator.
        exact_sums: Whether 8-bit kernels must not saturate: see `EvaluationContext.exact_sums`.
        rollout: How the split of the batches is run, `rollout_of(split)`; None runs the model once on each batch.

    Yields:
        Outputs as the artifact's `input.output` reads them, and labels.

    Raises:
        EvaluationError: The model cannot be loaded or run.
    """
    exact = exact_sums and integer_kernels_saturate()  # elsewhere every session's sums are exact
    session = open_exact_session(artifact, threads) if exact else open_session(artifact.onnx_bytes, threads)
    fixed = fixed_batch(session)

    def run(inputs: Inputs) -> Outputs:
        return _run_padded(session, inputs, fixed, artifact.input.output)

    for inputs, labels in batches(fixed or _batch_size(artifact, batch_size)):
        yield answers(rollout, run, inputs, labels), labels


def rollout_of(split: object) -> Rollout | None:
    """Returns how a split is run; None if the model is run once on each batch.

    A split whose examples are closed loops, such as the episodes of a control task, or growing prefixes, has a method
    `rollout(run, inputs, labels)`. It
    returns the outputs for a batch of its examples, for which it calls `run` as often as it likes, with any inputs.
    """
    rollout: Rollout | None = getattr(split, "rollout", None)
    return rollout


def answers(
    rollout: Rollout | None, run: Callable[[Inputs], Outputs], inputs: Inputs, labels: Labels
) -> Outputs:
    """Returns the outputs for a batch, `(b, ...)`, or by name.

    Args:
        rollout: That of the batch's split: see `rollout_of`.
        run: Runs the model.
        inputs: The batch's inputs.
        labels: The batch's labels.
    """
    return run(inputs) if rollout is None else rollout(run, inputs, labels)


def run_split(artifact: Artifact, split: Split, batch_size: int, threads: int) -> OutputBatch:
    """Runs a model over a split.

    Args:
        artifact: An ONNX artifact; only the outputs that its `input.output` names are used.
        split: The examples.
        batch_size: Maximum batch size; a model with a fixed batch size gets that, its last batch padded.
        threads: onnxruntime's threads within an operator.

    Returns:
        Outputs `(n, ...)`, or by name, and labels `(n, ...)`.

    Raises:
        EvaluationError: The model cannot be loaded or run, or some of its outputs are not finite.
    """
    return joined(list(run_batches(artifact, split.batches, batch_size, threads, rollout=rollout_of(split))))


def joined(batches: Sequence[OutputBatch]) -> OutputBatch:
    """Returns the concatenated outputs and labels of all batches.

    Raises:
        EvaluationError: There are no batches, or some outputs are not finite.
    """
    if not batches:
        raise EvaluationError("the split has no examples")
    outputs = joined_inputs([outputs for outputs, _ in batches])
    bad = n_not_finite(outputs)
    if bad:
        raise not_finite(bad, n_rows(outputs))
    return outputs, joined_labels([labels for _, labels in batches])


def joined_labels(parts: Sequence[Labels]) -> Labels:
    """Returns the concatenated labels of all batches; none if there are no batches."""
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def labels_of(split: Split) -> Labels:
    """Returns the labels of all examples, `(n, ...)`."""
    labels = getattr(split, "labels", None)
    if isinstance(labels, np.ndarray):  # without preparing inputs
        return labels
    return joined_labels([labels for _, labels in split.batches(64)])


def n_not_finite(outputs: Outputs) -> int:
    """Returns the number of examples with outputs that are NaN or infinite."""
    bad = [~np.isfinite(part.reshape(len(part), -1)).all(axis=1) for part in parts_of(outputs)]
    return int(np.sum(np.any(bad, axis=0)))


def not_finite(n_bad: int, n: int) -> EvaluationError:
    """Returns the error for outputs of `n_bad` of `n` examples."""
    return EvaluationError(
        f"the model's outputs are not finite (NaN or infinite) for {n_bad} of {n} examples"
    )


def _batch_size(artifact: Artifact, most: int) -> int:
    """Returns a batch size, smaller for large images: activations of a batch take many times the memory of its inputs."""
    return max(1, min(most, MOST_INPUT_BYTES // (4 * artifact.input.size)))


def reference_outputs(
    artifact: Artifact, split: Split, batch_size: int = BATCH_SIZE, threads: int = THREADS
) -> Any:
    """Returns the outputs of the float model on all examples, for `Reference`.

    Raises:
        EvaluationError: The model cannot be loaded or run, or some of its outputs are not finite.
    """
    return run_split(artifact, split, batch_size, threads)[0]


def _run_padded(
    session: "ort.InferenceSession", inputs: Inputs, fixed: int | None, spec: OutputSpec
) -> Outputs:
    n = n_rows(inputs)
    if fixed is not None and n < fixed:
        inputs = each(lambda array: np.concatenate([array, np.repeat(array[-1:], fixed - n, axis=0)]), inputs)
    names = [spec.name or session.get_outputs()[0].name, *spec.further]
    outputs = [spec.batch_first(output) for output in run_session(session, inputs, names)]
    for output in outputs:
        if output.ndim == 0 or len(output) < n:
            raise EvaluationError(
                f"the model yields a tensor of shape {output.shape} for {n} examples; one row per example is needed"
            )
    read: Outputs = spec.read({name: output[:n] for name, output in zip(names, outputs, strict=True)})
    return read


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

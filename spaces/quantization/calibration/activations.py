"""Runs a float network on calibration examples and hands out what flows through it."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.models.onnx.ort_session import ort_session
from spaces.stages.artifact import Artifact, Split

if TYPE_CHECKING:
    import onnxruntime as ort

MOST_BATCH_BYTES = 16 * 2**20  # of activations; while one batch is looked at, the next one runs
MOST_EXAMPLES = 128  # a batch
N_OUTLETS = 2  # batches of which the caller looks at one while the other is filled

Batch = dict[str, NDArray[np.float32]]
Examples = NDArray[np.float32]
_T = TypeVar("_T")


def activations(
    artifact: Artifact,
    tensors: Sequence[str],
    split: Split,
    n_images: int,
    first: int = 0,
    breaks: Sequence[int] = (),
) -> Generator[Batch, None, None]:
    """Runs the float network and yields the named tensors, batch by batch, each with its batch axis first.

    The batch is as large as `MOST_BATCH_BYTES` allows, so memory does not grow with the number of examples. A thread
    runs one batch ahead of the caller; a batch's arrays are written over as soon as the caller asks for the one after the next.

    Args:
        artifact: The float ONNX model.
        tensors: Names of activations (the network's input may be among them).
        split: The examples.
        n_images: The end: only the first so many examples of the split are used.
        first: Examples at the beginning that are left out.
        breaks: After so many examples of the split a batch ends, so that the caller can look at where it stands.

    Raises:
        StageError: The examples do not fit the model.
    """
    run, size = _runner(artifact, tensors, split)
    return _ahead(run, _portions(split, size, n_images, first, sorted(breaks)))


def _runner(
    artifact: Artifact, tensors: Sequence[str], split: Split
) -> tuple[Callable[[Examples], Batch], int]:
    """Returns what runs the network on a batch, and how many examples a batch should have."""
    import onnx

    proto = artifact.proto()
    inputs = {i.name: i for i in proto.graph.input}
    outputs = [t for t in tensors if t not in inputs]
    del proto.graph.output[:]
    for tensor in outputs:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    session = ort_session(proto)  # in one thread: the same sums in every run
    fixed = inputs[artifact.input.name].type.tensor_type.shape.dim[0].dim_value

    outlets = _Outlets(session, artifact.input.name, outputs)

    def run(examples: Examples) -> Batch:
        if examples.shape[1:] != artifact.input.shape:
            raise StageError(
                f"calibration examples have the shape {examples.shape[1:]}, but the model's input "
                f"{artifact.input.name!r} has {artifact.input.shape}"
            )
        n = len(examples)
        if fixed > n:  # the last batch of a network with a fixed batch size
            examples = np.resize(examples, (fixed, *examples.shape[1:]))
        found = outlets.run(examples) if outputs else []
        named = dict(zip(outputs, found, strict=True)) | {artifact.input.name: examples}
        return {t: named[t][:n] if len(named[t]) == len(examples) else named[t] for t in tensors}

    return run, fixed or _batch_size(run(next(split.batches(1, 1))[0]))


class _Outlets:
    """Runs a session into the same arrays again and again: fresh memory for every batch takes up to half as long as running.

    Args:
        session: The session.
        input_name: Its input.
        outputs: Names of the tensors that it yields.
    """

    def __init__(self, session: "ort.InferenceSession", input_name: str, outputs: Sequence[str]) -> None:
        self._session, self._input, self._outputs = session, input_name, list(outputs)
        self._shape: tuple[int, ...] = ()
        self._free: deque[list[NDArray[np.float32]]] = deque()

    def run(self, examples: Examples) -> list[NDArray[np.float32]]:
        """Returns the outputs; the arrays are used again in the call after the next one."""
        if examples.shape != self._shape or len(self._free) < N_OUTLETS:
            found = list(self._session.run(self._outputs, {self._input: examples}))
            if examples.shape != self._shape:
                self._shape = examples.shape
                self._free.clear()
            self._free.append([np.empty_like(values) for values in found])
            return found
        into = self._free.popleft()
        self._free.append(into)
        examples = np.ascontiguousarray(examples, np.float32)
        binding = self._session.io_binding()
        binding.bind_input(self._input, "cpu", 0, np.float32, examples.shape, examples.ctypes.data)
        for name, values in zip(self._outputs, into, strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, values.shape, values.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception:  # a tensor whose shape follows from the values
            return list(self._session.run(self._outputs, {self._input: examples}))
        return into


def _batch_size(of_one: Batch) -> int:
    n_bytes = sum(values.nbytes for values in of_one.values())
    return max(1, min(MOST_EXAMPLES, MOST_BATCH_BYTES // max(n_bytes, 1)))


def _portions(
    split: Split, size: int, n_images: int, first: int, breaks: Sequence[int]
) -> Iterator[Examples]:
    """Yields the inputs from `first` on, at most `size` at a time, none across a break."""
    done = 0
    for inputs, _ in split.batches(size, n_images):
        cuts = [b - done for b in (first, *breaks) if done < b < done + len(inputs)]
        for part in np.split(inputs, sorted(set(cuts))):
            done += len(part)
            if done > first:
                yield part


def _ahead(run: Callable[[Examples], _T], portions: Iterator[Examples]) -> Generator[_T, None, None]:
    """Yields what `run` makes of each portion; the next one is under way while the caller looks at this."""

    def one() -> _T | None:
        portion = next(portions, None)
        return None if portion is None else run(portion)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(one)
        while (found := coming.result()) is not None:
            coming = pool.submit(one)
            yield found
            del found  # or a third batch would be held

"""Runs a float network on calibration examples and yields its activations."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spaces.errors import StageError
from spaces.models.onnx.ort_session import ort_session
from spaces.stages.artifact import Artifact, Split
from spaces.stages.inputs import Inputs, each, n_rows

if TYPE_CHECKING:
    import onnxruntime as ort

MAX_BATCH_BYTES = 16 * 2**20  # of activations; the next batch runs while the caller processes one
MAX_EXAMPLES = 128  # per batch
N_BUFFERS = 2  # the caller processes one while the other is filled

Batch = dict[str, NDArray[Any]]
Feeds = dict[str, NDArray[Any]]
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

    The batch is as large as `MAX_BATCH_BYTES` allows, so memory does not grow with the number of examples. A
    thread runs one batch ahead of the caller; a batch's arrays are overwritten when the caller requests the
    second batch after it.

    Args:
        artifact: The float ONNX model.
        tensors: Names of activations (the network's input may be among them).
        split: The examples.
        n_images: Index after the last example: only the first `n_images` of the split are used.
        first: Index of the first example.
        breaks: Numbers of examples of the split after which a batch must end, so that the caller can store
            its state.

    Raises:
        StageError: The examples do not fit the model.
    """
    run, size = _runner(artifact, tensors)
    return _ahead(run, _portions(split, size, n_images, first, sorted(breaks)))


def _runner(artifact: Artifact, tensors: Sequence[str]) -> tuple[Callable[[Inputs], Batch], int]:
    """Returns a function that runs the network on a batch, and the number of examples per batch."""
    import onnx

    proto = artifact.proto()
    inputs = {i.name: i for i in proto.graph.input}
    outputs = [t for t in tensors if t not in inputs]
    del proto.graph.output[:]
    for tensor in outputs:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    session = ort_session(proto)  # one thread, so that sums are reproducible
    spec = artifact.input
    fixed = inputs[spec.name].type.tensor_type.shape.dim[0].dim_value
    buffered = _BufferedSession(session, outputs)

    def run(examples: Inputs) -> Batch:
        feeds = spec.feeds(examples)
        for tensor in spec.tensors:
            if feeds[tensor.name].shape[1:] != tensor.shape:
                raise StageError(
                    f"calibration examples have the shape {feeds[tensor.name].shape[1:]}, but the model's input "
                    f"{tensor.name!r} has {tensor.shape}"
                )
        n = size = n_rows(feeds)
        if fixed > n:  # the last batch of a network with a fixed batch size
            size = fixed
            feeds = {name: np.resize(array, (fixed, *array.shape[1:])) for name, array in feeds.items()}
        arrays = buffered.run(feeds) if outputs else []
        named = dict(zip(outputs, arrays, strict=True)) | feeds
        return {t: named[t][:n] if named[t].shape[:1] == (size,) else named[t] for t in tensors}

    return run, fixed or _batch_size(run(spec.zeros(1)))


class _BufferedSession:
    """Runs a session with reused output arrays: allocating them takes up to half as long as the run itself.

    Args:
        session: The session.
        outputs: Names of its outputs.
    """

    def __init__(self, session: "ort.InferenceSession", outputs: Sequence[str]) -> None:
        self._session, self._outputs = session, list(outputs)
        self._shapes: list[tuple[int, ...]] = []
        self._free: deque[list[NDArray[np.float32]]] = deque()

    def run(self, feeds: Feeds) -> list[NDArray[np.float32]]:
        """Returns the outputs; the arrays are overwritten by the second call after this one."""
        shapes = [array.shape for array in feeds.values()]
        if shapes != self._shapes or len(self._free) < N_BUFFERS:
            outputs = list(self._session.run(self._outputs, feeds))
            if shapes != self._shapes:
                self._shapes = shapes
                self._free.clear()
            self._free.append([np.empty_like(values) for values in outputs])
            return outputs
        buffers = self._free.popleft()
        self._free.append(buffers)
        feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, values in zip(self._outputs, buffers, strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, values.shape, values.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception:  # the shape of an output depends on the values
            return list(self._session.run(self._outputs, feeds))
        return buffers


def _batch_size(of_one: Batch) -> int:
    n_bytes = sum(values.nbytes for values in of_one.values())
    return max(1, min(MAX_EXAMPLES, MAX_BATCH_BYTES // max(n_bytes, 1)))


def _portions(split: Split, size: int, n_images: int, first: int, breaks: Sequence[int]) -> Iterator[Inputs]:
    """Yields the inputs from `first` on in portions of at most `size`, none of which crosses a break."""
    done = 0
    for inputs, _ in split.batches(size, n_images):
        n = n_rows(inputs)
        cuts = sorted({b - done for b in (first, *breaks) if done < b < done + n})
        for start, end in pairwise((0, *cuts, n)):
            if done + end > first:
                yield each(lambda array, rows=slice(start, end): array[rows], inputs)  # type: ignore[misc]
        done += n


def _ahead(run: Callable[[Inputs], _T], portions: Iterator[Inputs]) -> Generator[_T, None, None]:
    """Yields the result of `run` for each portion; a thread computes the next one in the meantime."""

    def one() -> _T | None:
        portion = next(portions, None)
        return None if portion is None else run(portion)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(one)
        while (result := future.result()) is not None:
            future = pool.submit(one)
            yield result
            del result  # otherwise a third batch would be held

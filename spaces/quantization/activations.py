"""Runs a float network on calibration examples and hands out what flows through it."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.artifact import Artifact, Split
from spaces.errors import StageError

MOST_BATCH_BYTES = 32 * 2**20  # of activations that are held at a time
MOST_EXAMPLES = 128  # a batch

Batch = dict[str, NDArray[np.float32]]


def activations(artifact: Artifact, tensors: Sequence[str], split: Split, n_images: int) -> Iterator[Batch]:
    """Runs the float network and yields the named tensors, batch by batch, each with its batch axis first.

    The batch is as large as `MOST_BATCH_BYTES` allows, so memory does not grow with the number of examples.

    Raises:
        StageError: The examples do not fit the model.
    """
    import onnx
    import onnxruntime as ort

    proto = artifact.proto()
    inputs = {i.name: i for i in proto.graph.input}
    outputs = [t for t in tensors if t not in inputs]
    del proto.graph.output[:]
    for tensor in outputs:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same sums in every run
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fixed = inputs[artifact.input.name].type.tensor_type.shape.dim[0].dim_value

    def run(examples: NDArray[np.float32]) -> Batch:
        if examples.shape[1:] != artifact.input.shape:
            raise StageError(
                f"calibration examples have the shape {examples.shape[1:]}, but the model's input "
                f"{artifact.input.name!r} has {artifact.input.shape}"
            )
        n = len(examples)
        if fixed > n:  # the last batch of a network with a fixed batch size
            examples = np.resize(examples, (fixed, *examples.shape[1:]))
        found = session.run(outputs, {artifact.input.name: examples}) if outputs else []
        named = dict(zip(outputs, found, strict=True)) | {artifact.input.name: examples}
        return {t: named[t][:n] if len(named[t]) == len(examples) else named[t] for t in tensors}

    size = fixed or _batch_size(run(next(split.batches(1, 1))[0]))
    for examples, _ in split.batches(size, n_images):
        yield run(examples)


def _batch_size(of_one: Batch) -> int:
    n_bytes = sum(values.nbytes for values in of_one.values())
    return max(1, min(MOST_EXAMPLES, MOST_BATCH_BYTES // max(n_bytes, 1)))

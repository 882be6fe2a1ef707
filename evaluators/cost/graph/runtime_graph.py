"""The kernels that onnxruntime executes for an ONNX model on this machine, read from its optimized graph.

Which nodes are fused, which layout a convolution uses and which Quantize and Dequantize nodes remain depends
on onnxruntime's version and on the processor. So onnxruntime writes its optimized graph to a temporary file,
and a profiled run reports the shapes.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.cost.graph.kernel import Kernel
from evaluators.cost.graph.op_graph import OpGraph
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.cost.graph.runtime_kernels import kernel_of, stored_inside
from spaces.errors import EvaluationError
from spaces.models.onnx.ort_session import ort_session
from spaces.stages.artifact import Artifact

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort


def runtime_graph(artifact: Artifact) -> OpGraph:
    """Analyses an ONNX artifact as onnxruntime runs it on this machine, at batch 1.

    A kernel's `op` is the operator plus the properties that select its implementation: `nchwc.Conv` (blocked
    layout), `QLinearConv.nhwc.u8s8.shifted` (layout, dtypes of activation and weight, nonzero weight zero
    point), `nchwc.Conv.Clip` (an activation function with its own pass over the output). Padding channels of
    the blocked layout are counted.

    Raises:
        EvaluationError: onnxruntime cannot load or run the model.
    """
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        probe = Probe(artifact, Path(folder), threads=1)
        probe.run()
        return probe.finish().graph


@dataclass(frozen=True)
class Profiled:
    """The result of a probe.

    Attributes:
        graph: The kernels, in the order of the optimized file.
        kernel_us: Time of each kernel in each run, `(n_kernels, n_runs)` float64, in whole microseconds.
    """

    graph: OpGraph
    kernel_us: np.ndarray[Any, np.dtype[np.float64]]


class Probe:
    """A session that writes its optimized graph and profiles every run.

    Args:
        artifact: An ONNX artifact.
        folder: An empty folder for its files.
        threads: onnxruntime's intra-op threads.

    Raises:
        EvaluationError: onnxruntime cannot load the model.
    """

    def __init__(self, artifact: Artifact, folder: Path, threads: int) -> None:
        self._file = folder / "optimized.onnx"
        self._session = _open(_named(artifact), self._file, folder / "run", threads)
        self._feeds = artifact.input.feeds(artifact.input.zeros(_batch(self._session)))

    def run(self) -> None:
        """Runs the model once on zeros.

        Raises:
            EvaluationError: onnxruntime cannot run the model.
        """
        try:
            self._session.run(None, self._feeds)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise EvaluationError(f"onnxruntime cannot run the model: {error}") from error

    def finish(self) -> Profiled:
        """Ends the profiling and reads its files; `run` must not be called afterwards."""
        import onnx

        profile = Path(self._session.end_profiling())
        events = [e for e in json.loads(profile.read_text()) if e.get("cat") == "Node"]
        proto = onnx.load(str(self._file))
        return _read(proto, events, self._feeds)


def _batch(session: "ort.InferenceSession") -> int:
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) and size > 0 else 1


def _named(artifact: Artifact) -> bytes:
    """Serializes the model with a unique name for every node, by which its profiling events are matched."""
    proto = artifact.proto()
    taken: set[str] = set()
    for i, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{i}_of_file"
        taken.add(node.name)
    return bytes(proto.SerializeToString())


def _open(model: bytes, file: Path, prefix: Path, threads: int) -> "ort.InferenceSession":
    try:
        return ort_session(
            model,
            threads,
            optimized_model_filepath=str(file),
            enable_profiling=True,
            profile_file_prefix=str(prefix),
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise EvaluationError(f"onnxruntime cannot load the model: {error}") from error


def _read(
    proto: "onnx.ModelProto", events: Sequence[Mapping[str, Any]], feeds: Mapping[str, Any]
) -> Profiled:
    import onnx

    by_node = _by_node(proto, events)
    type_name = onnx.TensorProto.DataType.Name
    initializers = {i.name: i for i in proto.graph.initializer}
    for node in proto.graph.node:
        initializers |= stored_inside(node)
    stored = {n: Tensor(tuple(i.dims), type_name(i.data_type).lower()) for n, i in initializers.items()}
    tensors = stored | {name: Tensor(array.shape, _dtype_name(array)) for name, array in feeds.items()}
    nodes = [node for node in proto.graph.node if node.name in by_node]
    for node in nodes:
        entries = by_node[node.name][0]["args"]["output_type_shape"]
        for name, entry in zip([o for o in node.output if o], entries, strict=False):
            ((dtype, shape),) = entry.items()
            tensors[name] = Tensor(tuple(shape), dtype)
    fixed = set(stored)
    for node in nodes:
        if fixed.issuperset(name for name in node.input if name):
            fixed.update(node.output)
    shifted = _not_zero(proto)
    kernels = tuple(kernel_of(node, tensors, stored, fixed, shifted) for node in nodes)
    n_runs = min((len(by_node[node.name]) for node in nodes), default=0)
    times = np.array([[e["dur"] for e in by_node[node.name][:n_runs]] for node in nodes], np.float64)
    return Profiled(_graph(proto, kernels, tensors, stored, tuple(feeds)), times.reshape(len(nodes), n_runs))


def _not_zero(proto: "onnx.ModelProto") -> frozenset[str]:
    """Returns the names of the stored zero points (per tensor or per channel) with a nonzero value."""
    import onnx

    whole = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    small = [i for i in proto.graph.initializer if i.data_type in whole and len(i.dims) <= 1]
    return frozenset(i.name for i in small if onnx.numpy_helper.to_array(i).any())


def _by_node(
    proto: "onnx.ModelProto", events: Sequence[Mapping[str, Any]]
) -> dict[str, list[Mapping[str, Any]]]:
    """Maps node names to profiling events.

    Nodes that the optimizer left unnamed get the name of the next unmatched event of their operator:
    onnxruntime names those events by operator and a running number.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        by_name.setdefault(str(event["name"]).removesuffix("_kernel_time"), []).append(event)
    named = {node.name for node in proto.graph.node}
    unmatched = [name for name in by_name if name not in named]
    for node in proto.graph.node:
        if not node.name:
            node.name = next(
                (n for n in unmatched if by_name[n][0]["args"].get("op_name") == node.op_type), ""
            )
            unmatched = [name for name in unmatched if name != node.name]
    return by_name


def _dtype_name(array: Any) -> str:
    return {"float32": "float", "float64": "double"}.get(str(array.dtype), str(array.dtype))


def _graph(
    proto: "onnx.ModelProto",
    kernels: tuple[Kernel, ...],
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    inputs: tuple[str, ...],
) -> OpGraph:
    outputs = tuple(o.name for o in proto.graph.output if o.name not in stored)
    named = {name for k in kernels for name in (*k.inputs, *k.outputs)}.union(inputs, outputs)
    read = {name for k in kernels for name in k.constants}
    return OpGraph(
        kernels,
        inputs,
        outputs,
        {name: tensors[name].n_bytes for name in sorted(named) if name in tensors},
        sum(stored[name].n_bytes for name in read),
        dict(Counter(k.op for k in kernels if k.kind == "other")),
    )

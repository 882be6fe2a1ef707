"""The kernels that onnxruntime executes for an ONNX model on this machine, as its own optimizer leaves them.

Which nodes melt into one kernel, which layout a convolution works in and which Quantize and Dequantize nodes stay
behind depends on onnxruntime's version and on the processor: so the optimizer itself is asked. Its graph is written
to a temporary file, and one run tells the shapes.
"""

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.cost.graph import Geometry, Kernel, OpGraph
from evaluators.cost.kinds import Kind
from evaluators.cost.tensors import Tensor
from evaluators.devices import DType
from spaces.artifact import Artifact
from spaces.errors import EvaluationError

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

_BLOCKED = "com.microsoft.nchwc"  # channels in blocks as wide as the processor's vectors
# Operators with multiply-accumulates, to the positions of (activation, weight).
_CONVS = {
    "Conv": (0, 1),
    "FusedConv": (0, 1),
    "NhwcFusedConv": (0, 1),
    "QLinearConv": (0, 3),
    "ConvInteger": (0, 1),
}
_TRANSPOSED = {"ConvTranspose": (0, 1), "QLinearConvTranspose": (0, 3)}
_PRODUCTS = {
    **dict.fromkeys(
        ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat"), (0, 1)
    ),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulNBits"), (0, 1)),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), (0, 3)),
}
_WEIGHTED = _CONVS | _TRANSPOSED | _PRODUCTS
_FIRST = {"QLinearConcat": (2,)}  # scale and zero point of the output come first
_KINDS: Mapping[Kind, frozenset[str]] = {
    "recurrent": frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}),
    "attention": frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"}),
    "pool": frozenset(
        "MaxPool AveragePool GlobalAveragePool GlobalMaxPool NhwcMaxPool QLinearAveragePool QLinearGlobalAveragePool "
        "ReduceMean ReduceMax ReduceSum ReduceMin QLinearReduceMean LpPool".split()
    ),
    "normalization": frozenset(
        "Softmax LogSoftmax QLinearSoftmax LayerNormalization SkipLayerNormalization InstanceNormalization "
        "SimplifiedLayerNormalization SkipSimplifiedLayerNormalization GroupNorm LRN LpNormalization "
        "BatchNormalization RMSNormalization".split()
    ),
    "movement": frozenset(
        "Concat QLinearConcat Transpose Slice Pad Reshape Flatten Squeeze Unsqueeze Identity Split Gather Expand Tile "
        "Resize Upsample DepthToSpace SpaceToDepth ReorderInput ReorderOutput ConstantOfShape Shape".split()
    ),
    "quantize": frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}),
    "elementwise": frozenset(
        "Abs Add And Cast Ceil Celu Clip Cos Div Elu Equal Erf Exp FastGelu Floor Gelu Greater HardSigmoid HardSwish "
        "LeakyRelu Less Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu QLinearAdd QLinearLeakyRelu QLinearMul "
        "QLinearSigmoid QuickGelu Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish "
        "Tanh ThresholdedRelu Where Xor BiasGelu".split()
    ),
}
_KIND_OF: Mapping[str, Kind] = {op: kind for kind, names in _KINDS.items() for op in names}
# Nodes that hand the same memory on.
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_SHORT = {"float": "f32", "float16": "f16", "uint8": "u8", "int8": "s8", "uint16": "u16", "int16": "s16"}


def runtime_graph(artifact: Artifact) -> OpGraph:
    """Analyses an ONNX artifact as onnxruntime runs it on this machine, with one example.

    A kernel's `op` is the operator with what else decides the code that runs: `nchwc.Conv` (blocked layout),
    `QLinearConv.nhwc.u8s8` (layout, types of activation and weight). Channels that the blocked layout fills up count.

    Raises:
        EvaluationError: onnxruntime cannot load or run the model.
    """
    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        probe = Probe(artifact, Path(folder), threads=1)
        probe.run()
        return probe.finish().graph


@dataclass(frozen=True)
class Profiled:
    """What a probe found.

    Attributes:
        graph: The kernels in the order of the optimized file.
        kernel_us: Time of each in each run, `(n_kernels, n_runs)` float64, whole microseconds as the profiler gives.
    """

    graph: OpGraph
    kernel_us: np.ndarray[Any, np.dtype[np.float64]]


class Probe:
    """A session that writes its optimized graph and profiles every run.

    Args:
        artifact: An ONNX artifact.
        folder: A folder of its own for its files.
        threads: onnxruntime's threads within an operator.

    Raises:
        EvaluationError: onnxruntime cannot load the model.
    """

    def __init__(self, artifact: Artifact, folder: Path, threads: int) -> None:
        self._file = folder / "optimized.onnx"
        self._session = _open(_named(artifact), self._file, folder / "run", threads)
        self._feeds = {i.name: _zeros(i, artifact) for i in self._session.get_inputs()}

    def run(self) -> None:
        """Runs the model once on zeros.

        Raises:
            EvaluationError: It cannot be run.
        """
        try:
            self._session.run(None, self._feeds)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise EvaluationError(f"onnxruntime cannot run the model: {error}") from error

    def finish(self) -> Profiled:
        """Ends the profiling and reads the files; the probe is used up."""
        import onnx

        told = Path(self._session.end_profiling())
        events = [e for e in json.loads(told.read_text()) if e.get("cat") == "Node"]
        proto = onnx.load(str(self._file))
        return _read(proto, events, self._feeds)


def _named(artifact: Artifact) -> bytes:
    """Gives every node a name of its own, by which its profile is found."""
    proto = artifact.proto()
    taken: set[str] = set()
    for i, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{i}_of_file"
        taken.add(node.name)
    return bytes(proto.SerializeToString())


def _open(model: bytes, file: Path, prefix: Path, threads: int) -> "ort.InferenceSession":
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions
    options.optimized_model_filepath = str(file)
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise EvaluationError(f"onnxruntime cannot load the model: {error}") from error


_NUMPY = {
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}


def _zeros(value: Any, artifact: Artifact) -> Any:
    spec = (1, *artifact.input.shape)
    same = value.name == artifact.input.name
    shape = [
        d if isinstance(d, int) and d > 0 else (spec[i] if same and i < len(spec) else 1)
        for i, d in enumerate(value.shape)
    ]
    return np.zeros(shape, _NUMPY.get(value.type, "float32"))


def _read(
    proto: "onnx.ModelProto", events: Sequence[Mapping[str, Any]], feeds: Mapping[str, Any]
) -> Profiled:
    import onnx

    by_node = _by_node(proto, events)
    type_name = onnx.TensorProto.DataType.Name
    stored = {i.name: Tensor(tuple(i.dims), type_name(i.data_type).lower()) for i in proto.graph.initializer}
    tensors = stored | {name: Tensor(array.shape, _dtype_name(array)) for name, array in feeds.items()}
    nodes = [node for node in proto.graph.node if node.name in by_node]
    for node in nodes:
        told = by_node[node.name][0]["args"]["output_type_shape"]
        for name, entry in zip([o for o in node.output if o], told, strict=False):
            ((dtype, shape),) = entry.items()
            tensors[name] = Tensor(tuple(shape), dtype)
    kernels = tuple(_kernel(node, tensors, stored) for node in nodes)
    n_runs = min((len(by_node[node.name]) for node in nodes), default=0)
    times = np.array([[e["dur"] for e in by_node[node.name][:n_runs]] for node in nodes], np.float64)
    return Profiled(_graph(proto, kernels, tensors, stored, tuple(feeds)), times.reshape(len(nodes), n_runs))


def _by_node(
    proto: "onnx.ModelProto", events: Sequence[Mapping[str, Any]]
) -> dict[str, list[Mapping[str, Any]]]:
    """Maps every node to its events; names the nameless, whose events are called by operator and a running number."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        found.setdefault(str(event["name"]).removesuffix("_kernel_time"), []).append(event)
    named = {node.name for node in proto.graph.node}
    left = [name for name in found if name not in named]
    for node in proto.graph.node:
        if not node.name:
            node.name = next((n for n in left if found[n][0]["args"].get("op_name") == node.op_type), "")
            left = [name for name in left if name != node.name]
    return found


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


def _kernel(node: "onnx.NodeProto", tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Kernel:
    attributes = {a.name: a for a in node.attribute}
    read = [name for name in dict.fromkeys(node.input) if name and name in tensors]
    inputs = tuple(name for name in read if name not in stored)
    constants = tuple(name for name in read if name in stored)
    outputs = tuple(name for name in node.output if name in tensors)
    places = _WEIGHTED.get(node.op_type, _FIRST.get(node.op_type, (0,)))
    operands = [node.input[i] for i in places if i < len(node.input)]
    known = [tensors[name] for name in operands if name in tensors]
    view = node.op_type in _VIEWS
    quantizes = _KIND_OF.get(node.op_type) == "quantize" and len(node.input) > 1
    geometry = _geometry(node, attributes, known, [tensors[o] for o in outputs])
    return Kernel(
        name=node.name,
        op=_variant(node, attributes, known, tensors[node.input[1]].shape if quantizes else ()),
        kind=_kind(node, attributes, operands, tensors, stored),
        dtype=_dtype(known),
        macs=_macs(node, known, [tensors[o] for o in outputs]),
        weight_bytes=sum(stored[name].n_bytes for name in constants),
        inputs=inputs,
        outputs=outputs,
        input_bytes=0 if view else sum(tensors[name].n_bytes for name in inputs),
        output_bytes=0 if view else sum(tensors[name].n_bytes for name in outputs),
        weight_bits=known[1].bits if len(known) > 1 and operands[1] in stored else 0,
        activation_bits=known[0].bits if known else 32,
        elements=sum(math.prod(tensors[name].shape) for name in outputs),
        constants=constants,
        nodes=(node.name,),
        geometry=geometry,
    )


def _variant(
    node: "onnx.NodeProto", attributes: Mapping[str, Any], operands: Sequence[Tensor], scale: tuple[int, ...]
) -> str:
    parts = ["nchwc"] if node.domain == _BLOCKED else []
    parts.append(node.op_type)
    if "channels_last" in attributes and attributes["channels_last"].i:
        parts.append("nhwc")
    types = "".join(_SHORT.get(t.dtype, t.dtype) for t in operands)
    if types not in ("f32", "f32f32"):
        parts.append(types)
    activation = attributes.get("activation")
    if activation is not None and activation.s and activation.s.decode() not in ("Relu", "Clip"):
        parts.append(activation.s.decode())
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and math.prod(scale) > 1:
        axis = attributes["axis"].i if "axis" in attributes else 1
        parts.append("last" if axis in (-1, len(operands[0].shape) - 1) else "channel")
    return ".".join(parts)


def _kind(
    node: "onnx.NodeProto",
    attributes: Mapping[str, Any],
    operands: Sequence[str],
    tensors: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
) -> Kind:
    if node.op_type in _CONVS | _TRANSPOSED:
        weight = tensors[operands[1]].shape
        group = attributes["group"].i if "group" in attributes else 1
        if weight[1] == 1 and group > 1:
            return "depthwise"
        return "pointwise" if math.prod(weight[2:]) == 1 else "conv"
    if node.op_type in _PRODUCTS:
        return "fully_connected" if operands[1] in stored else "attention"
    return _KIND_OF.get(node.op_type, "other")


def _dtype(operands: Sequence[Tensor]) -> DType:
    if operands and all(t.is_integer for t in operands):
        bits = [t.bits for t in operands]
        return "int16" if max(bits) > 8 else "int4" if min(bits) <= 4 else "int8"
    return "float16" if operands and all(t.dtype == "float16" for t in operands) else "float32"


def _macs(node: "onnx.NodeProto", operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    if node.op_type not in _WEIGHTED or len(operands) < 2 or not outputs:
        return 0
    n_outputs = math.prod(outputs[0].shape)
    if node.op_type in _CONVS:
        return n_outputs * math.prod(operands[1].shape[1:])
    if node.op_type in _TRANSPOSED:
        return math.prod(operands[0].shape) * math.prod(operands[1].shape[1:])
    return n_outputs * _inner(node, operands)


def _inner(node: "onnx.NodeProto", operands: Sequence[Tensor]) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    shape = operands[0].shape
    return shape[-2] if transposed and len(shape) > 1 else shape[-1]


def _geometry(
    node: "onnx.NodeProto",
    attributes: Mapping[str, Any],
    operands: Sequence[Tensor],
    outputs: Sequence[Tensor],
) -> Geometry | None:
    if not operands or not outputs or not outputs[0].shape:
        return None
    given, made = operands[0].shape, outputs[0].shape
    if node.op_type in _PRODUCTS:
        n = made[-1]
        return Geometry(_inner(node, operands), n, out_size=(math.prod(made) // max(n, 1), 1))
    last = node.op_type.startswith("Nhwc") or (
        "channels_last" in attributes and bool(attributes["channels_last"].i)
    )
    in_channels, in_size = _places(given, last)
    out_channels, out_size = _places(made, last)
    weight = operands[1].shape if node.op_type in _CONVS | _TRANSPOSED and len(operands) > 1 else ()
    window = _two(weight[2:]) if len(weight) > 2 else _two(_ints(attributes, "kernel_shape"))
    group = int(attributes["group"].i) if "group" in attributes else 1
    return Geometry(
        in_channels, out_channels, window, _two(_ints(attributes, "strides")), group, in_size, out_size
    )


def _places(shape: Sequence[int], channels_last: bool) -> tuple[int, tuple[int, int]]:
    """Channels, and (height, width) that are left; a matrix has its columns as channels."""
    if len(shape) < 3:
        return (shape[-1] if shape else 1), (math.prod(shape[:-1]), 1)
    if channels_last:
        return shape[-1], _two(shape[1:-1])
    return shape[1], _two(shape[2:])


def _ints(attributes: Mapping[str, Any], name: str) -> tuple[int, ...]:
    return tuple(attributes[name].ints) if name in attributes else ()


def _two(sizes: Sequence[int]) -> tuple[int, int]:
    """The first size and the product of the others; 1 where there is none."""
    return (int(sizes[0]) if sizes else 1), int(math.prod(sizes[1:]))

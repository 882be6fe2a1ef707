"""The kernels that a runtime executes for an ONNX model: what each computes, reads and writes.

An ONNX file lists operators; runtimes execute fused kernels. QuantizeLinear and DequantizeLinear melt into their
neighbours (a Conv between them is one int8 kernel), a bias, BatchNormalization, Relu or Clip into the kernel before,
and reshaping costs nothing.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.cost import operators as ops
from evaluators.cost.folding import Folding
from evaluators.cost.tensors import Tensor, at_batch_one
from evaluators.devices import DType
from spaces.artifact import Artifact

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: Name of the ONNX node that leads it (its first output where the node has no name).
        op: That node's operator.
        kind: Kernel class.
        dtype: What the multiply-accumulates are computed in; `int4` means 4-bit weights and 8-bit activations.
        macs: Multiply-accumulates.
        weight_bytes: Size of the constants that it reads, at their width in the file.
        inputs: Activation tensors that it reads.
        outputs: Activation tensors that it writes.
        input_bytes: Size of `inputs`.
        output_bytes: Size of `outputs`.
    """

    name: str
    op: str
    kind: ops.Kind
    dtype: DType
    macs: int
    weight_bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class OpGraph:
    """Kernels in the file's order.

    Attributes:
        kernels: The kernels.
        inputs: Activation tensors that the caller hands over.
        outputs: Activation tensors that the caller gets.
        tensor_bytes: Size of every activation tensor that is named above.
        weight_bytes: Size of all constants that the nodes read, each once.
        unknown: Operators that this analysis does not know, with how often they occur: what they read and write
            counts, their arithmetic does not.
    """

    kernels: tuple[Kernel, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensor_bytes: Mapping[str, int]
    weight_bytes: int
    unknown: Mapping[str, int]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one example."""
        return sum(kernel.macs for kernel in self.kernels)


def op_graph(artifact: Artifact) -> OpGraph:
    """Analyses an ONNX artifact (float, QDQ or QOperator) at batch 1.

    Raises:
        EvaluationError: The shapes of the model cannot be found.
    """
    model = at_batch_one(artifact)
    folding = Folding(model)
    kernels = _kernels(model, folding)
    given = [i.name for i in model.graph.input if i.name not in folding.stored]
    inputs = tuple(tensor for name in given for tensor in folding.written(name))
    outputs = tuple(
        folding.read(o.name, False) for o in model.graph.output if o.name not in folding.constants
    )
    named = {name for k in kernels for name in (*k.inputs, *k.outputs)}.union(inputs, outputs)
    return OpGraph(
        kernels,
        inputs,
        outputs,
        {name: folding.tensors[name].n_bytes for name in sorted(named)},
        sum(folding.tensors[name].n_bytes for name in folding.stored if name in folding.readers),
        dict(Counter(k.op for k in kernels if not ops.is_known(k.op))),
    )


def _kernels(model: "onnx.ModelProto", folding: Folding) -> tuple[Kernel, ...]:
    melted: set[str] = set()
    kernels = []
    for node in model.graph.node:
        if node.output[0] in melted or folding.is_free(node):
            continue
        chain = folding.chain(node)
        melted.update(n.output[0] for n in chain)
        kernels.append(_kernel(chain, folding))
    return tuple(kernels)


def _kernel(chain: list["onnx.NodeProto"], folding: Folding) -> Kernel:
    head = chain[0]
    integer = folding.is_integer(head)
    inside = {name for node in chain for name in node.output}
    read = [name for node in chain for name in node.input if name and name not in inside]
    activations = [name for name in read if name not in folding.constants]
    inputs = tuple(dict.fromkeys(folding.read(name, integer) for name in activations))
    outputs = tuple(tensor for name in chain[-1].output if name for tensor in folding.written(name))
    weights = {source for name in read for source in folding.constants.get(name, ())}
    tensors = folding.tensors
    return Kernel(
        name=head.name or head.output[0],
        op=head.op_type,
        kind=ops.kind_of(head, tensors),
        dtype=_dtype(head, folding),
        macs=ops.macs(head, tensors),
        weight_bytes=sum(tensors[name].n_bytes for name in weights),
        inputs=inputs,
        outputs=outputs,
        input_bytes=sum(tensors[name].n_bytes for name in inputs),
        output_bytes=sum(tensors[name].n_bytes for name in outputs),
    )


def _dtype(node: "onnx.NodeProto", folding: Folding) -> DType:
    """What the node's arithmetic runs in: that of its widest operand, 8-bit operands included with 4-bit weights."""
    names = ops.operands(node)
    if folding.is_integer(node):
        integers = [t for t in map(folding.quantized, names) if t is not None]
        bits = [tensor.bits for tensor in integers]
        if max(bits) > 8:
            return "int16"
        return "int4" if min(bits) <= 4 else "int8"
    return "float16" if _all_half([folding.tensors[name] for name in names]) else "float32"


def _all_half(operands: list[Tensor]) -> bool:
    return bool(operands) and all(tensor.bits == 16 for tensor in operands)

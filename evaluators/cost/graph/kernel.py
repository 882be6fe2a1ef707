"""A kernel is a group of fused ONNX nodes that a runtime executes together."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.cost.graph.operators import operators as ops
from evaluators.cost.graph.operators.geometry import Geometry, geometry_of
from evaluators.cost.graph.operators.macs import macs
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.cost.graph.reading.folding import Folding
from evaluators.devices.device import DType
from evaluators.devices.kinds import Kind


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: Name of its first ONNX node (that node's first output where it has no name).
        op: Operator of its first node.
        kind: Kernel class.
        dtype: Dtype of the multiply-accumulates; `int4` means 4-bit weights and 8-bit activations.
        macs: Multiply-accumulates.
        weight_bytes: Bytes of the constants that it reads, at their bit width in the file; of a look-up table
            only the gathered rows.
        inputs: Names of the activation tensors that it reads.
        outputs: Names of the activation tensors that it writes.
        input_bytes: Bytes of `inputs`.
        output_bytes: Bytes of `outputs`.
        weight_bits: Bits per element of its weight; 0 without a weight.
        activation_bits: Bits per element of its activation operands.
        elements: Elements of `outputs`.
        constants: Names of the stored tensors that it reads.
        nodes: Names of the ONNX nodes that it fuses, in order (first outputs where they have no names).
        geometry: Shapes; None if its kernel class has none.
        weight: Which of `constants` is the weight or look-up table; empty if none.
    """

    name: str
    op: str
    kind: Kind
    dtype: DType
    macs: int
    weight_bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_bytes: int
    output_bytes: int
    weight_bits: int = 0
    activation_bits: int = 32
    elements: int = 0
    constants: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    geometry: Geometry | None = None
    weight: str = ""


def kernels_of(nodes: tuple[Node, ...], folding: Folding) -> tuple[Kernel, ...]:
    """Returns the kernels that a runtime executes for the nodes, in their order."""
    fused: set[Node] = set()
    kernels = []
    for node in nodes:
        if node in fused or folding.is_free(node):
            continue
        chain = folding.chain(node)
        fused.update(chain)
        kernels.append(_kernel(chain, folding))
    return tuple(kernels)


def _kernel(chain: list[Node], folding: Folding) -> Kernel:
    head = chain[0]
    integer = folding.is_integer(head)
    inside = {name for node in chain for name in node.outputs}
    read = [name for node in chain for name in node.inputs if name and name not in inside]
    activations = [name for name in read if name not in folding.constants]
    inputs = tuple(dict.fromkeys(folding.read(name, integer) for name in activations))
    outputs = tuple(tensor for name in chain[-1].outputs if name for tensor in folding.written(name))
    constants = tuple(dict.fromkeys(s for name in read for s in folding.constants.get(name, ())))
    weight = _weight(head, folding)
    tensors = folding.tensors
    kind = ops.kind_of(head, tensors, folding.constants)
    return Kernel(
        name=head.name,
        op=head.op,
        kind=kind,
        dtype=_dtype(head, folding),
        macs=macs(head, tensors),
        weight_bytes=_weight_bytes(head, weight, constants, tensors),
        inputs=inputs,
        outputs=outputs,
        input_bytes=sum(tensors[name].n_bytes for name in inputs),
        output_bytes=sum(tensors[name].n_bytes for name in outputs),
        weight_bits=_weight_bits(head, weight, tensors),
        activation_bits=_activation_bits(head, folding),
        elements=sum(tensors[name].n_elements for name in outputs),
        constants=constants,
        nodes=tuple(node.name for node in chain),
        geometry=geometry_of(head, kind, tensors),
        weight=weight,
    )


def _weight(node: Node, folding: Folding) -> str:
    """Returns the name of the node's stored weight or look-up table; empty if it has none."""
    if ops.has_macs(node.op):
        names = ops.operands(node)
    else:
        names = list(node.inputs[:1]) if node.op in ops.LOOKUPS else []
    parts = [part for name in names for part in folding.constants.get(name, ())]
    return max(parts, key=lambda part: folding.tensors[part].n_elements, default="")


def _weight_bits(node: Node, weight: str, tensors: Mapping[str, Tensor]) -> int:
    stated = node.integer("bits", 0)  # MatMulNBits stores several elements in a byte
    return (stated or tensors[weight].bits) if weight else 0


def _weight_bytes(node: Node, weight: str, constants: tuple[str, ...], tensors: Mapping[str, Tensor]) -> int:
    total = sum(tensors[name].n_bytes for name in constants)
    if node.op not in ops.LOOKUPS or not weight:
        return total
    n_rows = tensors[node.outputs[0]].n_elements
    table = tensors[weight]
    return total - table.n_bytes + min(table.n_bytes, -(-n_rows * _weight_bits(node, weight, tensors) // 8))


def _activation_bits(node: Node, folding: Folding) -> int:
    names = [name for name in ops.operands(node) if name not in folding.constants]
    integer = folding.is_integer(node)
    operands = [(folding.quantized(name) if integer else None) or folding.tensors[name] for name in names]
    return max((tensor.bits for tensor in operands), default=32)


def _dtype(node: Node, folding: Folding) -> DType:
    """Returns the dtype of the node's arithmetic, by its widest operand; `int4` for 4-bit weights."""
    names = ops.operands(node)
    if folding.is_integer(node):
        integers = [t for t in map(folding.quantized, names) if t is not None]
        bits = [tensor.bits for tensor in integers]
        if max(bits) > 8:
            return "int16"
        return "int4" if min(bits) <= 4 else "int8"
    if ops.quantizes_itself(node):
        weight = _weight(node, folding)
        return "int4" if _weight_bits(node, weight, folding.tensors) <= 4 else "int8"
    floats = [tensor for tensor in map(folding.tensors.__getitem__, names) if "float" in tensor.dtype]
    return "float16" if floats and all(tensor.bits <= 16 for tensor in floats) else "float32"

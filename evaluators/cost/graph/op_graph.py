"""The fused kernels that a runtime executes for an ONNX model, with their MACs, bytes and shapes.

An ONNX file lists operators; runtimes execute fused kernels. QuantizeLinear and DequantizeLinear are fused
into their neighbours (a Conv between them is one int8 kernel), a bias, BatchNormalization, Relu or Clip into
the preceding kernel, and reshaping costs nothing.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaluators.cost.graph.kernel import Kernel, kernels_of
from evaluators.cost.graph.operators import operators as ops
from evaluators.cost.graph.reading.folding import Folding, Unfused
from evaluators.cost.graph.reading.model import read_model
from spaces.stages.artifact import Artifact

Fusion = Literal["common", "eager"]


@dataclass(frozen=True)
class OpGraph:
    """The kernels of one network.

    Attributes:
        kernels: The kernels, in the order of the file.
        inputs: Names of the graph's input tensors.
        outputs: Names of the graph's output tensors.
        tensor_bytes: Size of every activation tensor in bytes, by name.
        weight_bytes: Size of all constants that the nodes read, each counted once.
        unknown: Number of occurrences of each operator that the analysis does not know; their bytes are
            counted, their arithmetic is not. A Loop or Scan with a data-dependent number of iterations is
            listed here, too, because one iteration is counted.
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


def op_graph(artifact: Artifact, fusion: Fusion = "common") -> OpGraph:
    """Analyses an ONNX artifact (float, QDQ or QOperator) at batch 1.

    Subgraphs are inlined: of an If the branch that a constant condition selects, else the more expensive one;
    of a Loop or Scan all iterations if their number is constant, else one iteration, and `unknown` lists the
    operator.

    Args:
        artifact: The model.
        fusion: `common` fuses nodes into kernels as runtimes do and omits nodes that no output depends on;
            `eager` makes every node with work a kernel, dead branches included, as frameworks that execute
            node by node do.

    Raises:
        EvaluationError: A shape is dynamic, missing, or does not fit the artifact's input.
    """
    whole = read_model(artifact)
    model = whole if fusion == "eager" else whole.without_dead_branches()
    folding = Unfused(model) if fusion == "eager" else Folding(model)
    kernels = kernels_of(model.nodes, folding)
    inputs = tuple(tensor for name in model.inputs for tensor in folding.written(name))
    outputs = tuple(folding.read(name, False) for name in model.outputs if name not in folding.constants)
    named = sorted({name for k in kernels for name in (*k.inputs, *k.outputs)}.union(inputs, outputs))
    return OpGraph(
        kernels,
        inputs,
        outputs,
        {name: folding.tensors[name].n_bytes for name in named},
        sum(folding.tensors[name].n_bytes for name in folding.stored if name in folding.readers),
        dict(Counter(k.op for k in kernels if not ops.is_known(k.op)) + Counter(model.counted_once)),
    )

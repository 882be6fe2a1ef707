"""The kernels that a runtime executes for an ONNX model: what each computes, reads and writes.

An ONNX file lists operators; runtimes execute fused kernels. QuantizeLinear and DequantizeLinear melt into their
neighbours (a Conv between them is one int8 kernel), a bias, BatchNormalization, Relu or Clip into the kernel before,
and reshaping costs nothing.
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
    """Kernels in the file's order.

    Attributes:
        kernels: The kernels.
        inputs: Activation tensors that the caller hands over.
        outputs: Activation tensors that the caller gets.
        tensor_bytes: Size of every activation tensor that is named above.
        weight_bytes: Size of all constants that the nodes read, each once.
        unknown: Operators that this analysis does not know, with how often they occur: what they read and write
            counts, their arithmetic does not. A Loop or Scan is here if it counts as one round, for want of knowing
            how many it runs.
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

    Subgraphs are written out: of an If the dearer branch (the one whose condition holds, if that is constant), of a
    Loop or Scan as many rounds as it runs where that is constant, else one round, and `unknown` names it.

    Args:
        artifact: The model.
        fusion: `common` melts nodes into kernels as runtimes do and leaves out nodes that no output needs; with
            `eager` every node with work is a kernel, needed or not, as in frameworks that run node by node.

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

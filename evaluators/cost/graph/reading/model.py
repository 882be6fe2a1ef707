"""An ONNX model as the cost model's input: a flat list of nodes, and all shapes at batch 1."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from evaluators.cost.graph.operators.nodes import Node, live_nodes, nodes_of
from evaluators.cost.graph.operators.tensors import Tensor, tensors_of
from evaluators.cost.graph.reading.batch_one import at_batch_one
from evaluators.cost.graph.reading.subgraphs import flattened
from spaces.stages.artifact import Artifact


@dataclass(frozen=True)
class Model:
    """A graph without subgraphs.

    Attributes:
        nodes: Its nodes, in the file's order.
        inputs: Names of its input tensors.
        outputs: Names of its output tensors.
        stored: Names of the file's initializers.
        added: Names of constants that inlining created and that the file does not have.
        tensors: Every tensor by name.
        counted_once: Number of Loop and of Scan nodes whose iterations depend on the data, so that one is
            counted.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stored: frozenset[str]
    added: frozenset[str]
    tensors: Mapping[str, Tensor]
    counted_once: Mapping[str, int]

    def without_dead_branches(self) -> "Model":
        """Returns the model with only the nodes that its outputs depend on."""
        return replace(self, nodes=live_nodes(self.nodes, self.outputs))


def read_model(artifact: Artifact) -> Model:
    """Reads an ONNX artifact.

    Model-local functions and subgraphs are inlined: see `flattened`.

    Raises:
        EvaluationError: A shape is dynamic, missing, or does not fit the artifact's input.
    """
    flat = flattened(at_batch_one(artifact))
    graph = flat.model.graph
    nodes = nodes_of(graph.node)
    stored = [i.name for i in graph.initializer] + [i.values.name for i in graph.sparse_initializer]
    return Model(
        nodes,
        tuple(i.name for i in graph.input if i.name not in set(stored)),
        tuple(o.name for o in graph.output),
        frozenset(stored) - flat.added,
        flat.added,
        tensors_of(flat.model, nodes),
        flat.counted_once,
    )

"""Flattens an ONNX graph: inlines model-local functions, If, Loop and Scan."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.cost.graph.operators.macs import macs
from evaluators.cost.graph.operators.nodes import node_of
from evaluators.cost.graph.operators.tensors import Tensor, inferred_shapes, tensor_of
from evaluators.cost.graph.reading.inlining import Inlining
from spaces.quantization.transformers.float_form import name_float_operators

if TYPE_CHECKING:
    import onnx

_CONTROL = ("If", "Loop", "Scan")
_MOST_NODES = 50_000  # of one unrolled Loop or Scan
Cost = tuple[int, int]  # multiply-accumulates, elements written
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Flat:
    """A model without subgraphs.

    Attributes:
        model: The model.
        added: Names of stored tensors that the file does not have: indices and axes that only inlined nodes
            read.
        counted_once: Number of Loop and of Scan nodes of which only one iteration is inlined.
    """

    model: "onnx.ModelProto"
    added: frozenset[str]
    counted_once: Mapping[str, int]


def flattened(model: "onnx.ModelProto") -> Flat:
    """Returns the model as one flat graph.

    An If becomes the branch that a constant condition selects, otherwise the more expensive one: more
    multiply-accumulates, then more elements written. A Loop or Scan is unrolled if the number of iterations
    is constant and no condition ends it early; otherwise one iteration is inlined. Integer-only functions become the
    operators that they stand for.

    Args:
        model: A model whose inputs have static shapes; it is modified.

    Raises:
        EvaluationError: Shapes contradict each other.
    """
    import onnx.inliner

    name_float_operators(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
        del model.graph.value_info[:]  # the functions' shapes, for a dynamic batch
    added: set[str] = set()
    counted_once: Counter[str] = Counter()
    is_stuck = False
    while any(node.op_type in _CONTROL for node in model.graph.node):
        shaped = inferred_shapes(model).graph
        inlining = Inlining(model)
        is_stuck = not _expand(model, shaped, inlining, counted_once, force=is_stuck)
        added |= inlining.added
    return Flat(model, frozenset(added), dict(counted_once))


def _expand(
    model: "onnx.ModelProto",
    shaped: "onnx.GraphProto",
    inlining: Inlining,
    counted_once: Counter[str],
    force: bool,
) -> bool:
    """Inlines every node with subgraphs whose shapes are known.

    Args:
        model: The model, which is modified.
        shaped: Its graph with inferred shapes.
        inlining: Makes the inlined nodes.
        counted_once: Counts the Loop and Scan nodes of which one iteration is inlined.
        force: Whether to inline the first node with subgraphs even if its shapes are unknown.

    Returns:
        Whether any node was inlined.
    """
    tensors, nodes, done = _tensors(shaped), [], False
    for node, same in zip(model.graph.node, shaped.node, strict=True):
        if node.op_type not in _CONTROL:
            nodes.append(node)
            continue
        ready = force or _is_ready(same, tensors)
        force = False
        nodes += _inlined(node, same, tensors, inlining, counted_once) if ready else [node]
        done |= ready
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(inlining.stored)
    return done


def _is_ready(node: "onnx.NodeProto", tensors: Tensors) -> bool:
    if node.op_type == "If":
        return all(_is_shaped(a.g) for a in node.attribute)
    return node.op_type == "Loop" or node.input[-1] in tensors


def _is_shaped(graph: "onnx.GraphProto") -> bool:
    known = _tensors(graph)
    return all(name in known for node in graph.node for name in node.output if name)


def _inlined(
    node: "onnx.NodeProto",
    shaped: "onnx.NodeProto",
    tensors: Tensors,
    inlining: Inlining,
    counted_once: Counter[str],
) -> list["onnx.NodeProto"]:
    if node.op_type == "If":
        return inlining.branch(node, _chosen_branch(node, shaped, tensors, inlining))
    n_rounds = inlining.n_rounds(node, {name: t.shape for name, t in tensors.items()})
    if n_rounds is None or n_rounds * len(node.attribute[0].g.node) > _MOST_NODES:
        counted_once[node.op_type] += 1
        n_rounds = 1
    return inlining.rounds(node, n_rounds)


def _chosen_branch(
    node: "onnx.NodeProto", shaped: "onnx.NodeProto", tensors: Tensors, inlining: Inlining
) -> str:
    condition = inlining.constant(node.input[0])
    if condition is not None:
        return "then_branch" if condition.all() else "else_branch"
    costs = {a.name: _cost(a.g, tensors) for a in shaped.attribute}
    names = sorted(costs, reverse=True)  # then_branch wins a tie
    return str(max(names, key=costs.__getitem__))


def _cost(graph: "onnx.GraphProto", outer: Tensors) -> Cost:
    tensors = outer | _tensors(graph)
    total = (0, 0)
    for node in graph.node:
        if node.op_type == "If":
            cost = max(_cost(a.g, tensors) for a in node.attribute)
        elif node.op_type in _CONTROL:
            cost = _cost(next(a.g for a in node.attribute if a.name == "body"), tensors)
        elif all(name in tensors for name in (*node.input, *node.output) if name):
            written = sum(tensors[name].n_elements for name in node.output if name)
            cost = (macs(node_of(node), tensors), written)
        else:
            continue
        total = (total[0] + cost[0], total[1] + cost[1])
    return total


def _tensors(graph: "onnx.GraphProto") -> Tensors:
    values = {v.name: tensor_of(v) for v in (*graph.input, *graph.output, *graph.value_info)}
    known = {name: tensor for name, tensor in values.items() if tensor is not None}
    return known | {i.name: Tensor(tuple(i.dims), "float") for i in graph.initializer}

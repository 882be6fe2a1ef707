"""Parts of a network that are rebuilt one after another, and the examples' values at the border between them.

::

    segments = segments_of(graph, layers, static, per_block=True)
    for segment in segments:       # in topological order
        segment.inputs ──nodes──> segment.outputs      # read by later segments

Between two segments only values `(n_examples, ...)` and values that no example changes are alive, so that examples can be drawn at
random from them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.errors import StageError
from spaces.models.layers import Layer
from spaces.models.onnx.torch_graph.graph import Node, TorchGraph, Values

if TYPE_CHECKING:
    from torch import Tensor

MOST_LAYERS = 8  # of a block: longer ones are divided into layers, which need less time and memory
MERGED_LAYERS = 3  # consecutive layers without a branch make a block of so many, as an inverted residual


@dataclass(frozen=True)
class Segment:
    """Consecutive nodes.

    Attributes:
        nodes: The nodes.
        layers: The quantized layers among them.
        inputs: Names of the activations that they read and do not make.
        outputs: Names of the activations that they make and that later segments read, or that the network returns.
        alive: Names of all activations that later segments read.
    """

    nodes: tuple[Node, ...]
    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    alive: frozenset[str]


@dataclass(frozen=True)
class Borders:
    """How values of the network depend on the number of examples, from runs with two numbers.

    Attributes:
        batched: Names of the values `(n_examples, ...)`.
        static: Values that are the same for all examples, by name.
    """

    batched: frozenset[str]
    static: Mapping[str, "Tensor"]


def borders_of(graph: TorchGraph, examples: Values) -> Borders:
    """Runs the network on one and on two of the examples.

    Args:
        graph: The network.
        examples: Its inputs by name, `(n, ...)` with n of at least 3; exactly n of a network with a fixed number of examples.
    """
    n = len(next(iter(examples.values())))
    sizes = (2, 3) if n >= 3 else (n, n)
    runs = []
    for size in sizes:
        given = {name: value[:size] for name, value in examples.items()}
        runs.append(given | graph.run(graph.nodes, given))
    first, second = runs
    batched = {
        name
        for name in first
        if first[name].ndim
        and (first[name].shape[0], second[name].shape[0]) == sizes
        and first[name].shape[1:] == second[name].shape[1:]
    }
    static = {
        name: value
        for name, value in first.items()
        if name not in batched and value.shape == second[name].shape and bool((value == second[name]).all())
    }
    return Borders(frozenset(batched), static)


def segments_of(
    graph: TorchGraph, layers: Collection[Layer], borders: Borders, per_block: bool
) -> list[Segment]:
    """Divides the network's nodes.

    Args:
        graph: The network.
        layers: The layers that are quantized.
        borders: What its values depend on.
        per_block: Whether a segment begins where one value is alive, as between residual blocks; else before every layer.

    Raises:
        StageError: No border lies before the first layer.
    """
    by_node = {layer.node: layer for layer in layers}
    positions = [i for i, node in enumerate(graph.nodes) if node.name in by_node]
    alive = _alive(graph)
    allowed = [
        i
        for i in range(len(graph.nodes) + 1)
        if all(t in borders.batched or t in borders.static for t in alive[i])
    ]
    if not positions or not allowed:
        raise StageError(
            "quantize.rounding: no part of the network can be rebuilt on its own; use rounding: nearest"
        )
    cuts = _before_layers(positions, allowed)
    if per_block:
        cuts = _blocks(cuts, positions, {i for i in allowed if len(alive[i] & borders.batched) == 1})
    last = min(i for i in (*allowed, len(graph.nodes)) if i > positions[-1])  # nothing is rounded after it
    ends = [*cuts[1:], last]
    return [
        _segment(graph, alive, 0 if i == 0 else a, b, by_node)
        for i, (a, b) in enumerate(zip(cuts, ends, strict=True))
    ]


def whole(graph: TorchGraph, layers: Collection[Layer]) -> Segment:
    """Returns the network as one segment."""
    return Segment(
        graph.nodes,
        tuple({x.name: x for x in layers}.values()),
        tuple(graph.inputs),
        tuple(graph.outputs),
        frozenset(),
    )


def _alive(graph: TorchGraph) -> list[frozenset[str]]:
    """Returns the activations that are alive before each node, and after the last one."""
    found, alive = [], set(graph.outputs)
    for node in reversed(graph.nodes):
        found.append(frozenset(alive))
        alive -= set(node.outputs)
        alive |= {t for t in node.inputs if t and t not in graph.constants}
    return [frozenset(alive), *reversed(found)]


def _before_layers(positions: Sequence[int], allowed: Sequence[int]) -> list[int]:
    """Returns the last allowed border before each layer, each once."""
    cuts = dict.fromkeys(max((i for i in allowed if i <= position), default=0) for position in positions)
    return list(cuts)


def _blocks(cuts: Sequence[int], positions: Sequence[int], narrow: Collection[int]) -> list[int]:
    """Returns the cuts at which one value is alive; blocks of too many layers are divided, single layers merged."""
    blocks: list[list[int]] = []
    for cut in cuts:
        if cut in narrow or not blocks:
            blocks.append([cut])
        else:
            blocks[-1].append(cut)
    found: list[int] = []
    n_merged = 0
    for block in blocks:
        single = len(block) == 1
        if single and 0 < n_merged < MERGED_LAYERS:
            n_merged += 1
            continue
        n_merged = 1 if single else 0
        found += [block[0]] if len(block) <= MOST_LAYERS else block
    return found


def _segment(
    graph: TorchGraph, alive: Sequence[frozenset[str]], begin: int, end: int, by_node: Mapping[str, Layer]
) -> Segment:
    nodes = graph.nodes[begin:end]
    made = {o for node in nodes for o in node.outputs}
    read = dict.fromkeys(
        t for node in nodes for t in node.inputs if t and t not in graph.constants and t not in made
    )
    return Segment(
        nodes=nodes,
        layers=tuple(by_node[node.name] for node in nodes if node.name in by_node),
        inputs=tuple(read),
        outputs=tuple(o for node in nodes for o in node.outputs if o in alive[end]),
        alive=alive[end],
    )

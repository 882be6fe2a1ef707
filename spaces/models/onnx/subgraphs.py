"""What the subgraphs of a graph (branches of If, bodies of Loop and Scan) read of it.

For passes over protobuf; an `onnx_ir` value knows these readers by itself.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def names_read(node: "onnx.NodeProto") -> tuple[str, ...]:
    """Returns the names of all tensors of its graph that a node reads: as inputs, and in its subgraphs."""
    return (*node.input, *_read_inside(node))


def nodes_inside(node: "onnx.NodeProto") -> Iterator["onnx.NodeProto"]:
    """Yields the nodes of a node's subgraphs, and of those within them."""
    for graph in graphs_inside(node):
        yield from graph.node


def graphs_inside(node: "onnx.NodeProto") -> Iterator["onnx.GraphProto"]:
    """Yields a node's subgraphs, each with those within it after it."""
    for graph in _subgraphs(node):
        yield graph
        for inner in graph.node:
            yield from graphs_inside(inner)


def expose_subgraph_readers(graph: "onnx.GraphProto") -> None:
    """Lets subgraphs read tensors of the graph through Identity nodes of the graph, in place.

    So every reader is a node of the graph: onnxruntime's quantization tools see no others, and would remove
    or rename a tensor that a subgraph reads. Constants that are not float32 (shapes, axes) are not quantized
    and are read as before.
    """
    from onnx import helper

    untouched = {i.name for i in graph.initializer if i.data_type != helper.TensorProto.FLOAT}
    taken = {name for node in graph.node for name in (*names_read(node), *node.output, node.name)}
    exposed: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for name in _read_inside(node):
            if name in exposed or name in untouched:
                continue
            exposed[name] = _fresh(f"{name}_of_subgraph", taken)
            nodes.append(helper.make_node("Identity", [name], [exposed[name]], name=exposed[name]))
        for inner in _subgraphs(node):
            _rename(inner, exposed)
        nodes.append(node)
    if exposed:
        del graph.node[:]
        graph.node.extend(nodes)


def _subgraphs(node: "onnx.NodeProto") -> Iterator["onnx.GraphProto"]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _read_inside(node: "onnx.NodeProto") -> Iterator[str]:
    """Yields the names that a node's subgraphs read of the graphs around them."""
    for graph in _subgraphs(node):
        own = _own_names(graph)
        read = (
            *(name for inner in graph.node for name in names_read(inner)),
            *(o.name for o in graph.output),
        )
        yield from (name for name in dict.fromkeys(read) if name and name not in own)


def _own_names(graph: "onnx.GraphProto") -> set[str]:
    stored = (*(i.name for i in graph.initializer), *(i.values.name for i in graph.sparse_initializer))
    return {*stored, *(i.name for i in graph.input), *(name for node in graph.node for name in node.output)}


def _rename(graph: "onnx.GraphProto", names: Mapping[str, str]) -> None:
    """Renames what a subgraph, and those within it, read of the graph around it."""
    own = _own_names(graph)
    outer = {name: new for name, new in names.items() if name not in own}
    for node in graph.node:
        node.input[:] = [outer.get(name, name) for name in node.input]
        for inner in _subgraphs(node):
            _rename(inner, outer)
    for output in graph.output:
        output.name = outer.get(output.name, output.name)


def _fresh(base: str, taken: set[str]) -> str:
    name, n = base, 0
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    taken.add(name)
    return name

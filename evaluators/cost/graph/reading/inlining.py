"""Copies the nodes of an ONNX subgraph into the graph around it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

_FIRST_WITH_AXES_AS_INPUT = 13  # opset of Unsqueeze


class Inlining:
    """Writes subgraphs out, under names of their own.

    Args:
        model: The model around them.

    Attributes:
        stored: Tensors that the nodes read, for the model's initializers.
        added: Names of those that no subgraph holds.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        self.stored: list[onnx.TensorProto] = []
        self.added: set[str] = set()
        self._opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self._constants = _constants(model.graph)

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Returns the value of a tensor that the file states."""
        from onnx import numpy_helper

        stated = self._constants.get(name)
        return None if stated is None else numpy_helper.to_array(stated)

    def branch(self, node: "onnx.NodeProto", chosen: str) -> list["onnx.NodeProto"]:
        """Returns the nodes of one branch of an If."""
        graph = next(a.g for a in node.attribute if a.name == chosen)
        nodes, made = self._copy(graph, f"{_name(node)}/", {})
        return [*nodes, *map(_identity, made, node.output)]

    def n_rounds(self, node: "onnx.NodeProto", shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """Returns how often the body of a Loop or Scan runs; None where only a run can tell."""
        if node.op_type == "Scan":
            scanned, axis = node.input[-1], (_ints(node, "scan_input_axes") or [0])[-1]
            return shapes[scanned][axis] if scanned in shapes else None
        most = self.constant(node.input[0]) if node.input[0] else None
        first = self.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.asarray(True)
        if first is not None and not first.all():
            return 0
        endless = first is not None and _stays_true(_body(node))
        return int(most.item()) if most is not None and endless else None

    def rounds(self, node: "onnx.NodeProto", n_rounds: int) -> list["onnx.NodeProto"]:
        """Returns the nodes of `n_rounds` rounds of a Loop or Scan, and those that stack what each round yields."""
        is_loop = node.op_type == "Loop"
        n_scanned = 0 if is_loop else _int(node, "num_scan_inputs")
        states = list(node.input[2 if is_loop else 0 : len(node.input) - n_scanned])
        scanned = list(node.input[len(node.input) - n_scanned :]) if n_scanned else []
        axes = _ints(node, "scan_input_axes") or [0] * n_scanned
        n_states, nodes = len(states), list["onnx.NodeProto"]()
        stacks: list[list[str]] = [[] for _ in node.output[n_states:]]
        for n in range(n_rounds):
            prefix = f"{_name(node)}/{n}/"
            given = self._loop_inputs(prefix, n, node.input[1]) if is_loop else []
            rows = [
                self._row(x, axis, n, f"{prefix}row_{i}")
                for i, (x, axis) in enumerate(zip(scanned, axes, strict=True))
            ]
            nodes += rows
            given += [*states, *(row.output[0] for row in rows)]
            body = _body(node)
            copied, made = self._copy(
                body, prefix, dict(zip((i.name for i in body.input), given, strict=True))
            )
            nodes += copied
            made = made[1:] if is_loop else made
            states = made[:n_states]
            for stack, name in zip(stacks, made[n_states:], strict=True):
                stack.append(name)
        nodes += map(_identity, states, node.output)
        return [*nodes, *self._stacked(node, stacks, node.output[n_states:])]

    def _loop_inputs(self, prefix: str, n: int, condition: str) -> list[str]:
        """The two that a Loop hands to its body besides the states: the round and the condition."""
        number = self._store(f"{prefix}round", np.asarray(n, np.int64))
        return [number, condition or self._store(f"{prefix}condition", np.asarray(True))]

    def _row(self, scanned: str, axis: int, n: int, name: str) -> "onnx.NodeProto":
        from onnx import helper

        place = self._store(f"{name}_place", np.asarray(n, np.int64))
        return helper.make_node("Gather", [scanned, place], [name], name=name, axis=axis)

    def _stacked(
        self, node: "onnx.NodeProto", stacks: list[list[str]], outputs: list[str]
    ) -> list["onnx.NodeProto"]:
        from onnx import helper

        axes = _ints(node, "scan_output_axes") or [0] * len(stacks)
        nodes = []
        for stack, output, axis in zip(stacks, outputs, axes, strict=True):
            if not output or not stack:
                continue
            rows = [f"{name}/row_of_{output}" for name in stack]
            nodes += [self._unsqueeze(name, row, axis) for name, row in zip(stack, rows, strict=True)]
            nodes.append(helper.make_node("Concat", rows, [output], name=output, axis=axis))
        return nodes

    def _unsqueeze(self, name: str, row: str, axis: int) -> "onnx.NodeProto":
        from onnx import helper

        if self._opset < _FIRST_WITH_AXES_AS_INPUT:
            return helper.make_node("Unsqueeze", [name], [row], axes=[axis])
        axes = self._store(f"{row}_axes", np.asarray([axis], np.int64))
        return helper.make_node("Unsqueeze", [name, axes], [row])

    def _store(self, name: str, value: NDArray[np.generic]) -> str:
        from onnx import numpy_helper

        self.stored.append(numpy_helper.from_array(value, name))
        self.added.add(name)
        return name

    def _copy(
        self, graph: "onnx.GraphProto", prefix: str, names: dict[str, str]
    ) -> tuple[list["onnx.NodeProto"], list[str]]:
        """Copies a subgraph; returns its nodes, and the new names of its outputs.

        Args:
            graph: The subgraph.
            prefix: Begins the names of all that it makes.
            names: New names of its inputs.
        """
        import onnx

        for stored in graph.initializer:
            names[stored.name] = prefix + stored.name
            copied = onnx.TensorProto()
            copied.CopyFrom(stored)
            copied.name = names[stored.name]
            self.stored.append(copied)
        names |= {name: prefix + name for node in graph.node for name in node.output if name}
        return [_renamed(node, prefix, names) for node in graph.node], [
            names.get(o.name, o.name) for o in graph.output
        ]


def _renamed(node: "onnx.NodeProto", prefix: str, names: Mapping[str, str]) -> "onnx.NodeProto":
    import onnx

    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.name = prefix + node.name if node.name else ""
    copied.output[:] = [names.get(name, name) for name in node.output]
    _rename_read(copied, names)
    return copied


def _rename_read(node: "onnx.NodeProto", names: Mapping[str, str]) -> None:
    """Renames what a node reads, also inside its subgraphs (ONNX lets no inner name hide an outer one)."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for inner in attribute.g.node:
            _rename_read(inner, names)
        for output in attribute.g.output:
            output.name = names.get(output.name, output.name)


def _stays_true(body: "onnx.GraphProto") -> bool:
    """Whether a Loop's body hands its condition on, or states that it holds."""
    from onnx import numpy_helper

    makers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    stated = _constants(body).get(name)
    return name == body.input[1].name or (stated is not None and bool(numpy_helper.to_array(stated).all()))


def _constants(graph: "onnx.GraphProto") -> dict[str, "onnx.TensorProto | None"]:
    stated = {i.name: i for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            stated |= dict.fromkeys(
                node.output, next((a.t for a in node.attribute if a.name == "value"), None)
            )
    return stated


def _identity(read: str, written: str) -> "onnx.NodeProto":
    from onnx import helper

    return helper.make_node("Identity", [read], [written])


def _name(node: "onnx.NodeProto") -> str:
    return str(node.name or node.output[0])


def _body(node: "onnx.NodeProto") -> "onnx.GraphProto":
    return next(a.g for a in node.attribute if a.name == "body")


def _int(node: "onnx.NodeProto", name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def _ints(node: "onnx.NodeProto", name: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [])

"""Copies the nodes of ONNX subgraphs (If, Loop, Scan) into the enclosing graph."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

_FIRST_WITH_AXES_AS_INPUT = 13  # opset of Unsqueeze


class Inlining:
    """Inlines subgraphs, with unique names for their nodes and tensors.

    Args:
        model: The enclosing model.

    Attributes:
        stored: Tensors that the inlined nodes read, to be added to the model's initializers.
        added: Names of those that inlining created, i.e. that are in no subgraph.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        self.stored: list[onnx.TensorProto] = []
        self.added: set[str] = set()
        self._opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self._constants = _constants(model.graph)

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Returns the value of an initializer or Constant node; None if `name` is neither."""
        from onnx import numpy_helper

        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def branch(self, node: "onnx.NodeProto", chosen: str) -> list["onnx.NodeProto"]:
        """Returns the nodes of one branch of an If; `chosen` is `then_branch` or `else_branch`."""
        graph = next(a.g for a in node.attribute if a.name == chosen)
        nodes, outputs = self._copy(graph, f"{_name(node)}/", {})
        return [*nodes, *map(_identity, outputs, node.output)]

    def n_rounds(self, node: "onnx.NodeProto", shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """Returns the number of iterations of a Loop or Scan; None if it depends on the data."""
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
        """Returns the nodes of `n_rounds` iterations of a Loop or Scan, and of stacking their outputs."""
        is_loop = node.op_type == "Loop"
        n_scanned = 0 if is_loop else _int(node, "num_scan_inputs")
        states = list(node.input[2 if is_loop else 0 : len(node.input) - n_scanned])
        scanned = list(node.input[len(node.input) - n_scanned :]) if n_scanned else []
        axes = _ints(node, "scan_input_axes") or [0] * n_scanned
        n_states, nodes = len(states), list["onnx.NodeProto"]()
        stacks: list[list[str]] = [[] for _ in node.output[n_states:]]
        for n in range(n_rounds):
            prefix = f"{_name(node)}/{n}/"
            inputs = self._loop_inputs(prefix, n, node.input[1]) if is_loop else []
            rows = [
                self._row(x, axis, n, f"{prefix}row_{i}")
                for i, (x, axis) in enumerate(zip(scanned, axes, strict=True))
            ]
            nodes += rows
            inputs += [*states, *(row.output[0] for row in rows)]
            body = _body(node)
            copied, outputs = self._copy(
                body, prefix, dict(zip((i.name for i in body.input), inputs, strict=True))
            )
            nodes += copied
            outputs = outputs[1:] if is_loop else outputs
            states = outputs[:n_states]
            for stack, name in zip(stacks, outputs[n_states:], strict=True):
                stack.append(name)
        nodes += map(_identity, states, node.output)
        return [*nodes, *self._stacked(node, stacks, node.output[n_states:])]

    def _loop_inputs(self, prefix: str, n: int, condition: str) -> list[str]:
        """Returns the first two inputs of a Loop's body: the iteration number and the condition."""
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
        """Copies a subgraph; returns its nodes and the new names of its outputs.

        Args:
            graph: The subgraph.
            prefix: Prefix of the names of its nodes and tensors.
            names: New names of its inputs, by their names in the subgraph.
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
    """Renames a node's inputs, also inside its subgraphs (in ONNX no inner name may shadow an outer one)."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for inner in attribute.g.node:
            _rename_read(inner, names)
        for output in attribute.g.output:
            output.name = names.get(output.name, output.name)


def _stays_true(body: "onnx.GraphProto") -> bool:
    """Whether the output condition of a Loop's body is its input condition, or the constant true."""
    from onnx import numpy_helper

    producers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    constant = _constants(body).get(name)
    return name == body.input[1].name or (
        constant is not None and bool(numpy_helper.to_array(constant).all())
    )


def _constants(graph: "onnx.GraphProto") -> dict[str, "onnx.TensorProto | None"]:
    constants = {i.name: i for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants |= dict.fromkeys(
                node.output, next((a.t for a in node.attribute if a.name == "value"), None)
            )
    return constants


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

"""An ONNX graph that torch runs, in parts and with gradients; operators that torch functions lack run in onnxruntime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.models.onnx.torch_graph.operators import functions

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import Tensor

Values = dict[str, "Tensor"]
Read = Callable[["Node", int, "Tensor"], "Tensor"]
"""`(node, position of the input, value)` -> the value that the node gets."""


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes:
        name: Its name.
        op_type: Its operator.
        inputs: Names of its inputs; empty for an absent one.
        outputs: Names of its outputs.
        attributes: Its attributes.
        proto: The node itself.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: "onnx.NodeProto"

    @cached_property
    def is_differentiable(self) -> bool:
        """Whether gradients pass: torch has the operator."""
        return self.proto.domain in ("", "ai.onnx") and self.op_type in functions()


class TorchGraph:
    """The main graph of an ONNX model.

    Args:
        proto: The model, with nodes in topological order, unique node names and inferred types.
        device: Torch device that holds constants and runs nodes.

    Attributes:
        nodes: The nodes.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        constants: Initializers and constant nodes, by name.
    """

    def __init__(self, proto: "onnx.ModelProto", device: "torch.device | str" = "cpu") -> None:
        import torch
        from onnx import numpy_helper

        self._opsets, self._device = list(proto.opset_import), device
        self._ir_version = proto.ir_version
        self.constants: Values = {
            i.name: torch.from_numpy(numpy_helper.to_array(i).copy()).to(device)
            for i in proto.graph.initializer
        }
        self.inputs = tuple(i.name for i in proto.graph.input if i.name not in self.constants)
        self.outputs = tuple(o.name for o in proto.graph.output)
        nodes = [_node(n) for n in proto.graph.node]
        for node in nodes:
            if node.op_type in ("Constant", "ConstantOfShape") and not node.inputs:
                self.constants[node.outputs[0]] = self._constant(node)
        self.nodes = tuple(n for n in nodes if not all(o in self.constants for o in n.outputs))
        self._sessions: dict[str, Any] = {}

    def run(
        self,
        nodes: Sequence[Node],
        values: Values,
        weights: Mapping[str, "Tensor"] | None = None,
        read: Read | None = None,
    ) -> Values:
        """Runs nodes.

        Args:
            nodes: The nodes, in topological order.
            values: Tensors by name, at least those that the nodes read and do not make.
            weights: Tensors that stand in for constants, by name.
            read: Called with each floating-point activation that a node reads; what it returns is what the node gets.

        Returns:
            Their outputs, by name.
        """
        weights, made = weights or {}, Values()
        for node in nodes:
            given = [self._value(name, values, made, weights) for name in node.inputs]
            if read is not None:
                given = [self._read(read, node, i, value) for i, value in enumerate(given)]
            made.update(zip(node.outputs, self._outputs(node, given), strict=False))
        return made

    def _read(self, read: Read, node: Node, position: int, value: "Tensor | None") -> "Tensor | None":
        if value is None or node.inputs[position] in self.constants or not value.is_floating_point():
            return value
        return read(node, position, value)

    def _value(
        self, name: str, values: Values, made: Values, weights: Mapping[str, "Tensor"]
    ) -> "Tensor | None":
        if not name:
            return None
        for table in (made, values, weights, self.constants):
            if name in table:
                return table[name]
        raise KeyError(name)

    def _outputs(self, node: Node, given: "list[Tensor | None]") -> "tuple[Tensor, ...]":
        if node.is_differentiable:
            try:
                result = functions()[node.op_type](node.attributes, *given)
            except (
                NotImplementedError,
                RuntimeError,
                IndexError,
            ):  # a form of the operator that torch does not have
                pass
            else:
                return result if isinstance(result, tuple) else (result,)
        return self._by_onnxruntime(node, given)

    def _by_onnxruntime(self, node: Node, given: "list[Tensor | None]") -> "tuple[Tensor, ...]":
        """Runs one node in onnxruntime, without gradients."""
        import onnxruntime as ort
        import torch

        present = {
            n: t.detach().cpu().numpy() for n, t in zip(node.inputs, given, strict=True) if t is not None
        }
        key = f"{node.name} {[(n, str(a.dtype), a.ndim) for n, a in present.items()]}"
        if key not in self._sessions:
            self._sessions[key] = ort.InferenceSession(
                self._model(node, present), providers=["CPUExecutionProvider"]
            )
        session = self._sessions[key]
        outputs = session.run([o for o in node.outputs if o], present)
        by_name = dict(zip((o for o in node.outputs if o), outputs, strict=True))
        return tuple(
            torch.from_numpy(by_name[o]).to(self._device) if o else torch.zeros(0) for o in node.outputs
        )

    def _model(self, node: Node, present: Mapping[str, Any]) -> bytes:
        import onnx
        from onnx import helper

        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
            for n, a in present.items()
        ]
        outputs = [onnx.ValueInfoProto(name=o) for o in node.outputs if o]
        graph = helper.make_graph([node.proto], "node", inputs, outputs)
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        return bytes(model.SerializeToString())

    def _constant(self, node: Node) -> "Tensor":
        import torch
        from onnx import numpy_helper

        value = next(v for k, v in node.attributes.items() if k.startswith("value"))
        array = numpy_helper.to_array(value) if hasattr(value, "dims") else np.asarray(value)
        return torch.from_numpy(array.copy()).to(self._device)


def _node(proto: "onnx.NodeProto") -> Node:
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    if proto.op_type == "Split":  # before opset 18 only the number of outputs says into how many
        attributes.setdefault("num_outputs", len(proto.output))
    return Node(proto.name, proto.op_type, tuple(proto.input), tuple(proto.output), attributes, proto)

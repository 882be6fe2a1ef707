"""Which nodes of an ONNX graph cost nothing of their own, because runtimes melt them into a neighbour."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evaluators.cost import operators as ops
from evaluators.cost.tensors import Tensor, tensors_of

if TYPE_CHECKING:
    import onnx


class Folding:
    """Answers questions about one graph.

    The rules are those that onnxruntime and TensorFlow Lite share: a node whose operands all come from
    DequantizeLinear computes on integers (if it has multiply-accumulates, or if its result is quantized again);
    a QuantizeLinear melts into whoever makes its input, unless somebody needs that input in floating point. At the
    graph's ends the caller is taken to hand over, and to get, the quantized tensor, in the layout that is wanted: a
    Transpose of the graph's input is what a converter between frameworks adds, not what a device executes.

    Args:
        model: A model from `at_batch_one`.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        self.tensors = tensors_of(model)
        self.stored = {i.name for i in model.graph.initializer}
        self.outputs = {o.name for o in model.graph.output}
        self._inputs = {i.name for i in model.graph.input} - self.stored
        self.producer = {name: node for node in model.graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.constants = self._find_constants(model)

    def is_free(self, node: "onnx.NodeProto") -> bool:
        """Whether the node leads no kernel: it is constant, a view, or melts into a neighbour."""
        if all(name in self.constants for name in node.output if name) or self._is_view(node):
            return True
        if node.op_type == "QuantizeLinear":
            return self._repeats(node) is not None or self._quantized_at_once(self._base(node.input[0]))
        return node.op_type == "DequantizeLinear" and not self._has_float_reader(node.output[0])

    def is_integer(self, node: "onnx.NodeProto") -> bool:
        """Whether the node computes on quantized operands."""
        names = ops.operands(node)
        if not ops.has_macs(node.op_type):
            names = [name for name in names if name not in self.constants]
        if not names or any(self.quantized(name) is None for name in names):
            return False
        written = [name for name in self.chain(node)[-1].output if name]
        return ops.has_macs(node.op_type) or all(
            self.tensors[name].is_integer or self._quantized_at_once(name) for name in written
        )

    def chain(self, head: "onnx.NodeProto") -> list["onnx.NodeProto"]:
        """The node, and those behind it that melt into it."""
        chain = [head]
        while True:
            output = chain[-1].output[0]
            readers = self.readers.get(output, [])
            if len(readers) != 1 or output in self.outputs:
                return chain
            added = {name for name in readers[0].input if name and name != output}
            melts = ops.melts_behind(head.op_type, readers[0].op_type) and added <= self.constants.keys()
            if not melts:
                return chain
            chain.append(readers[0])

    def quantized(self, name: str) -> Tensor | None:
        """The tensor of small integers that `name` is, or was dequantized from; None if there is none."""
        if name in self.constants:
            widest = max((self.tensors[p] for p in self.constants[name]), key=lambda t: t.n_bytes)
            return widest if widest.is_integer else None
        tensor = self.tensors[self._integers(self._base(name))]
        return tensor if tensor.is_integer else None

    def read(self, name: str, integer: bool) -> str:
        """The tensor in memory that a kernel reads when its node says `name`.

        Args:
            name: An activation tensor.
            integer: Whether the kernel computes on integers.
        """
        base = self._base(name)
        maker = self.producer.get(base)
        if maker is None:
            return self.written(base)[0]
        if maker.op_type == "DequantizeLinear" and (integer or self.is_free(maker)):
            return self.read(maker.input[0], integer)
        if maker.op_type == "QuantizeLinear":
            earlier = self._repeats(maker)
            return base if earlier is None else self.read(earlier, integer)
        return base

    def written(self, name: str) -> tuple[str, ...]:
        """The tensors in memory that hold a kernel's output, or the graph's input, `name`."""
        if not self._quantized_at_once(name):
            return (name,)
        return tuple(dict.fromkeys(n.output[0] for n in self._final_readers(name)))

    def _find_constants(self, model: "onnx.ModelProto") -> dict[str, tuple[str, ...]]:
        """Maps every tensor that no input influences to the stored tensors that it is made of."""
        made_of: dict[str, tuple[str, ...]] = {name: (name,) for name in self.stored}
        for node in model.graph.node:
            given = [name for name in node.input if name]
            if node.op_type in ops.RANDOM or not all(name in made_of for name in given):
                continue
            if not given:  # a Constant holds its tensor itself
                self.stored.update(node.output)
            sources = tuple(dict.fromkeys(s for name in given for s in made_of[name]))
            made_of.update({name: sources or (name,) for name in node.output if name})
        return made_of

    def _is_view(self, node: "onnx.NodeProto") -> bool:
        at_entry = node.op_type == "Transpose" and node.input[0] in self._inputs
        return node.op_type in ops.VIEWS or at_entry

    def _base(self, name: str) -> str:
        """Follows views back to the tensor that they show."""
        while name in self.producer and self._is_view(self.producer[name]):
            name = self.producer[name].input[0]
        return name

    def _integers(self, name: str) -> str:
        maker = self.producer.get(name)
        return maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else name

    def _final_readers(self, name: str) -> Iterator["onnx.NodeProto"]:
        """Who reads the tensor, itself or a view of it."""
        for node in self.readers.get(name, []):
            if self._is_view(node):
                yield from self._final_readers(node.output[0])
            else:
                yield node

    def _leaves_graph(self, name: str) -> bool:
        views = (n.output[0] for n in self.readers.get(name, []) if self._is_view(n))
        return name in self.outputs or any(self._leaves_graph(view) for view in views)

    def _quantized_at_once(self, name: str) -> bool:
        readers = list(self._final_readers(name))
        only_quantized = bool(readers) and all(r.op_type == "QuantizeLinear" for r in readers)
        dequantized = name in self.producer and self.producer[name].op_type == "DequantizeLinear"
        return only_quantized and not dequantized and not self._leaves_graph(name)

    def _repeats(self, quantize: "onnx.NodeProto") -> str | None:
        """The tensor that the node merely reproduces, because its input was dequantized in the same way."""
        maker = self.producer.get(self._base(quantize.input[0]))
        same = (
            maker is not None
            and maker.op_type == "DequantizeLinear"
            and maker.input[1:] == quantize.input[1:]
        )
        return maker.input[0] if maker is not None and same else None

    def _has_float_reader(self, name: str) -> bool:
        readers = self._final_readers(name)
        return any(r.op_type != "QuantizeLinear" and not self.is_integer(r) for r in readers)

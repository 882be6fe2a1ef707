"""Operator fusion: which nodes of an ONNX graph runtimes fuse into other nodes or fold away."""

from collections.abc import Iterator

from evaluators.cost.graph.operators import operators as ops
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.cost.graph.reading.model import Model


class Folding:
    """The fusion rules that onnxruntime and TensorFlow Lite share, applied to one graph.

    A node whose operands all come from DequantizeLinear computes on integers (if it has multiply-accumulates,
    or if its result is quantized again). A QuantizeLinear is fused into the producer of its input, unless
    another node reads that input in floating point. The graph's inputs and outputs are assumed to be passed
    as quantized tensors in the device's layout: a Transpose of the graph's input comes from conversion
    between frameworks and is not executed.

    Args:
        model: The graph.

    Attributes:
        tensors: Every tensor by name.
        stored: Names of the tensors that the file stores, those of Constant nodes included.
        outputs: Names of the graph's outputs.
        producer: The node that writes a tensor, by the tensor's name.
        readers: The nodes that read a tensor, by the tensor's name.
        constants: Tensors that do not depend on the graph's inputs, mapped to the stored tensors they are
            computed from.
    """

    def __init__(self, model: Model) -> None:
        self.tensors = model.tensors
        self.stored = set(model.stored)
        self.outputs = set(model.outputs)
        self._inputs = set(model.inputs)
        self.producer = {name: node for node in model.nodes for name in node.outputs if name}
        self.readers: dict[str, list[Node]] = {}
        for node in model.nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)
        self.constants = self._find_constants(model)
        self._is_integer: dict[Node, bool] = {}

    def is_free(self, node: Node) -> bool:
        """Whether the node is no kernel of its own: it is constant, a view, or fused into a neighbour."""
        if all(name in self.constants for name in node.outputs if name) or self._is_view(node):
            return True
        if node.op == "QuantizeLinear":
            return self._repeats(node) is not None or self._quantized_at_once(self._base(node.inputs[0]))
        return node.op == "DequantizeLinear" and not self._has_float_reader(node.outputs[0])

    def is_integer(self, node: Node) -> bool:
        """Whether the node computes on quantized operands."""
        if node not in self._is_integer:
            self._is_integer[node] = self._computes_on_integers(node)
        return self._is_integer[node]

    def _computes_on_integers(self, node: Node) -> bool:
        names = ops.operands(node)
        if not ops.has_macs(node.op):
            names = [name for name in names if name not in self.constants]
        if not names or any(self.quantized(name) is None for name in names):
            return False
        written = [name for name in self.chain(node)[-1].outputs if name]
        return ops.has_macs(node.op) or all(
            self.tensors[name].is_integer or self._quantized_at_once(name) for name in written
        )

    def chain(self, head: Node) -> list[Node]:
        """Returns the node and the nodes after it that are fused into it."""
        chain = [head]
        while True:
            output = chain[-1].outputs[0]
            readers = self.readers.get(output, [])
            if len(readers) != 1 or output in self.outputs:
                return chain
            added = {name for name in readers[0].inputs if name and name != output}
            if not (ops.is_fused(head.op, readers[0].op) and added <= self.constants.keys()):
                return chain
            chain.append(readers[0])

    def quantized(self, name: str) -> Tensor | None:
        """Returns the quantized tensor that `name` is or was dequantized from; None if there is none."""
        if name in self.constants:
            parts = (self.tensors[part] for part in self.constants[name])
            # On a tie the first, because DequantizeLinear lists the integers before their scales.
            largest = max(parts, key=lambda tensor: tensor.n_elements, default=None)
            return largest if largest is not None and largest.is_integer else None
        tensor = self.tensors[self._integers(self._base(name))]
        return tensor if tensor.is_integer else None

    def read(self, name: str, integer: bool) -> str:
        """Returns the tensor in memory that a kernel reads for its node's input `name`.

        Args:
            name: An activation tensor.
            integer: Whether the kernel computes on integers.
        """
        base = self._base(name)
        producer = self.producer.get(base)
        if producer is None:
            return self.written(base)[0]
        if producer.op == "DequantizeLinear" and (integer or self.is_free(producer)):
            return self.read(producer.inputs[0], integer)
        if producer.op == "QuantizeLinear":
            earlier = self._repeats(producer)
            return base if earlier is None else self.read(earlier, integer)
        return base

    def written(self, name: str) -> tuple[str, ...]:
        """Returns the tensors in memory that hold `name`, a kernel's output or the graph's input.

        If only QuantizeLinear nodes read it, these are their outputs, one per different quantization.
        """
        if not self._quantized_at_once(name):
            return (name,)
        return tuple(dict.fromkeys(n.outputs[0] for n in self._final_readers(name)))

    def _find_constants(self, model: Model) -> dict[str, tuple[str, ...]]:
        """Maps tensors that do not depend on the graph's inputs to the stored tensors they derive from."""
        sources_of: dict[str, tuple[str, ...]] = {name: (name,) for name in model.stored}
        sources_of |= dict.fromkeys(model.added, ())
        for node in model.nodes:
            inputs = [name for name in node.inputs if name]
            if node.op in ops.SHAPES:  # constant because shapes are static
                inputs = []
            elif node.op in ops.RANDOM or not all(name in sources_of for name in inputs):
                continue
            elif not inputs:  # a Constant node stores its tensor itself
                self.stored.update(node.outputs)
                sources_of.update({name: (name,) for name in node.outputs})
                continue
            sources = tuple(dict.fromkeys(s for name in inputs for s in sources_of[name]))
            sources_of.update({name: sources for name in node.outputs if name})
        return sources_of

    def _is_view(self, node: Node) -> bool:
        at_entry = node.op == "Transpose" and node.inputs[0] in self._inputs
        return node.op in ops.VIEWS or at_entry

    def _base(self, name: str) -> str:
        """Follows views back to the tensor whose memory they share."""
        while name in self.producer and self._is_view(self.producer[name]):
            name = self.producer[name].inputs[0]
        return name

    def _integers(self, name: str) -> str:
        producer = self.producer.get(name)
        return producer.inputs[0] if producer is not None and producer.op == "DequantizeLinear" else name

    def _final_readers(self, name: str) -> Iterator[Node]:
        """Yields the nodes that read the tensor, directly or through a view."""
        for node in self.readers.get(name, []):
            if self._is_view(node):
                yield from self._final_readers(node.outputs[0])
            else:
                yield node

    def _leaves_graph(self, name: str) -> bool:
        views = (n.outputs[0] for n in self.readers.get(name, []) if self._is_view(n))
        return name in self.outputs or any(self._leaves_graph(view) for view in views)

    def _quantized_at_once(self, name: str) -> bool:
        """Whether only QuantizeLinear nodes read the tensor, so that it is never stored in floating point."""
        readers = list(self._final_readers(name))
        only_quantized = bool(readers) and all(r.op == "QuantizeLinear" for r in readers)
        dequantized = name in self.producer and self.producer[name].op == "DequantizeLinear"
        return only_quantized and not dequantized and not self._leaves_graph(name)

    def _repeats(self, quantize: Node) -> str | None:
        """Returns the tensor that was dequantized with equal parameters to the node's input, if any."""
        producer = self.producer.get(self._base(quantize.inputs[0]))
        same = (
            producer is not None
            and producer.op == "DequantizeLinear"
            and producer.inputs[1:] == quantize.inputs[1:]
        )
        return producer.inputs[0] if producer is not None and same else None

    def _has_float_reader(self, name: str) -> bool:
        readers = self._final_readers(name)
        return any(r.op != "QuantizeLinear" and not self.is_integer(r) for r in readers)


class Unfused(Folding):
    """Eager execution: no fusion, every node with work is a kernel."""

    def is_free(self, node: Node) -> bool:
        """Whether the node has no work: it is constant or a view."""
        return all(name in self.constants for name in node.outputs if name) or self._is_view(node)

    def is_integer(self, node: Node) -> bool:
        """Whether the node has multiply-accumulates, and all its non-constant operands are integers."""
        names = [name for name in ops.operands(node) if name not in self.constants]
        return ops.has_macs(node.op) and bool(names) and all(self.tensors[name].is_integer for name in names)

    def chain(self, head: Node) -> list[Node]:
        """Returns the node alone."""
        return [head]

    def read(self, name: str, integer: bool) -> str:
        """Returns the tensor in memory that a kernel reads for its node's input `name`."""
        return self._base(name)

    def written(self, name: str) -> tuple[str, ...]:
        """Returns `name` alone: every tensor is written as the file has it."""
        return (name,)

    def _is_view(self, node: Node) -> bool:
        return node.op in ops.VIEWS

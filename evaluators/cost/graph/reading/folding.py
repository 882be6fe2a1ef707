"""Which nodes of an ONNX graph cost nothing of their own, because runtimes melt them into a neighbour."""

from collections.abc import Iterator

from evaluators.cost.graph.operators import operators as ops
from evaluators.cost.graph.operators.nodes import Node
from evaluators.cost.graph.operators.tensors import Tensor
from evaluators.cost.graph.reading.model import Model


class Folding:
    """Answers questions about one graph.

    The rules are those that onnxruntime and TensorFlow Lite share: a node whose operands all come from
    DequantizeLinear computes on integers (if it has multiply-accumulates, or if its result is quantized again);
    a QuantizeLinear melts into whoever makes its input, unless somebody needs that input in floating point. At the
    graph's ends the caller is taken to hand over, and to get, the quantized tensor, in the layout that is wanted: a
    Transpose of the graph's input is what a converter between frameworks adds, not what a device executes.

    Args:
        model: The graph.
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
        """Whether the node leads no kernel: it is constant, a view, or melts into a neighbour."""
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
        """The node, and those behind it that melt into it."""
        chain = [head]
        while True:
            output = chain[-1].outputs[0]
            readers = self.readers.get(output, [])
            if len(readers) != 1 or output in self.outputs:
                return chain
            added = {name for name in readers[0].inputs if name and name != output}
            melts = ops.melts_behind(head.op, readers[0].op) and added <= self.constants.keys()
            if not melts:
                return chain
            chain.append(readers[0])

    def quantized(self, name: str) -> Tensor | None:
        """The tensor of small integers that `name` is, or was dequantized from; None if there is none."""
        if name in self.constants:
            parts = (self.tensors[part] for part in self.constants[name])
            # Of equals the first: DequantizeLinear reads the integers before their scales.
            largest = max(parts, key=lambda tensor: tensor.n_elements, default=None)
            return largest if largest is not None and largest.is_integer else None
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
        if maker.op == "DequantizeLinear" and (integer or self.is_free(maker)):
            return self.read(maker.inputs[0], integer)
        if maker.op == "QuantizeLinear":
            earlier = self._repeats(maker)
            return base if earlier is None else self.read(earlier, integer)
        return base

    def written(self, name: str) -> tuple[str, ...]:
        """The tensors in memory that hold a kernel's output, or the graph's input, `name`."""
        if not self._quantized_at_once(name):
            return (name,)
        return tuple(dict.fromkeys(n.outputs[0] for n in self._final_readers(name)))

    def _find_constants(self, model: Model) -> dict[str, tuple[str, ...]]:
        """Maps every tensor that no input influences to the stored tensors that it is made of."""
        made_of: dict[str, tuple[str, ...]] = {name: (name,) for name in model.stored}
        made_of |= dict.fromkeys(model.added, ())
        for node in model.nodes:
            given = [name for name in node.inputs if name]
            if node.op in ops.SHAPES:  # known before the first run
                given = []
            elif node.op in ops.RANDOM or not all(name in made_of for name in given):
                continue
            elif not given:  # a Constant holds its tensor itself
                self.stored.update(node.outputs)
                made_of.update({name: (name,) for name in node.outputs})
                continue
            sources = tuple(dict.fromkeys(s for name in given for s in made_of[name]))
            made_of.update({name: sources for name in node.outputs if name})
        return made_of

    def _is_view(self, node: Node) -> bool:
        at_entry = node.op == "Transpose" and node.inputs[0] in self._inputs
        return node.op in ops.VIEWS or at_entry

    def _base(self, name: str) -> str:
        """Follows views back to the tensor that they show."""
        while name in self.producer and self._is_view(self.producer[name]):
            name = self.producer[name].inputs[0]
        return name

    def _integers(self, name: str) -> str:
        maker = self.producer.get(name)
        return maker.inputs[0] if maker is not None and maker.op == "DequantizeLinear" else name

    def _final_readers(self, name: str) -> Iterator[Node]:
        """Who reads the tensor, itself or a view of it."""
        for node in self.readers.get(name, []):
            if self._is_view(node):
                yield from self._final_readers(node.outputs[0])
            else:
                yield node

    def _leaves_graph(self, name: str) -> bool:
        views = (n.outputs[0] for n in self.readers.get(name, []) if self._is_view(n))
        return name in self.outputs or any(self._leaves_graph(view) for view in views)

    def _quantized_at_once(self, name: str) -> bool:
        readers = list(self._final_readers(name))
        only_quantized = bool(readers) and all(r.op == "QuantizeLinear" for r in readers)
        dequantized = name in self.producer and self.producer[name].op == "DequantizeLinear"
        return only_quantized and not dequantized and not self._leaves_graph(name)

    def _repeats(self, quantize: Node) -> str | None:
        """The tensor that the node merely reproduces, because its input was dequantized in the same way."""
        maker = self.producer.get(self._base(quantize.inputs[0]))
        same = (
            maker is not None and maker.op == "DequantizeLinear" and maker.inputs[1:] == quantize.inputs[1:]
        )
        return maker.inputs[0] if maker is not None and same else None

    def _has_float_reader(self, name: str) -> bool:
        readers = self._final_readers(name)
        return any(r.op != "QuantizeLinear" and not self.is_integer(r) for r in readers)


class Unfused(Folding):
    """The same questions where nothing melts into anything: every node with work runs on its own."""

    def is_free(self, node: Node) -> bool:
        """Whether the node has no work: it is constant, or a view."""
        return all(name in self.constants for name in node.outputs if name) or self._is_view(node)

    def is_integer(self, node: Node) -> bool:
        """Whether the node computes on integers that it reads as such."""
        names = [name for name in ops.operands(node) if name not in self.constants]
        return ops.has_macs(node.op) and bool(names) and all(self.tensors[name].is_integer for name in names)

    def chain(self, head: Node) -> list[Node]:
        """The node alone."""
        return [head]

    def read(self, name: str, integer: bool) -> str:
        """The tensor in memory that a kernel reads when its node says `name`."""
        return self._base(name)

    def written(self, name: str) -> tuple[str, ...]:
        """The tensor in memory that holds `name`."""
        return (name,)

    def _is_view(self, node: Node) -> bool:
        return node.op in ops.VIEWS

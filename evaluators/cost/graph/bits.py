"""The graph of a quantized file under other bit widths than the file's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluators.cost.graph.kernel import Kernel
from evaluators.cost.graph.op_graph import OpGraph
from evaluators.devices.device import DType
from spaces.errors import EvaluationError

WIDTHS = range(1, 17)  # bits that a quantized tensor may have
_INTEGER: tuple[DType, ...] = ("int16", "int8", "int4")
Bits = Mapping[str, int]


def with_bits(graph: OpGraph, weight_bits: Sequence[int], activation_bits: Sequence[int]) -> OpGraph:
    """Returns the graph of the same file with other bit widths.

    Args:
        graph: Kernels of a quantized file.
        weight_bits: Of each of `layers_of(graph)`.
        activation_bits: Of what each of them reads; see `BitWidths`.

    Raises:
        EvaluationError: There is not one width for each layer, or a width is none.
    """
    return BitWidths(graph).graph_of(weight_bits, activation_bits)


def layers_of(graph: OpGraph) -> tuple[str, ...]:
    """Returns the quantized weights, stored tensors, in the order of the kernels that multiply with them."""
    weights = (k.weight for k in graph.kernels if k.macs and k.weight in graph.widths)
    return tuple(dict.fromkeys(name for name in weights if graph.widths[name].is_integer))


class BitWidths:
    """What follows from the bit widths of the layers, the structure of the graph staying as it is.

    A layer's weight bits are those of its weight and of the weight's zero points; scales and biases keep theirs. Its
    activation bits are those of the quantized activations that it reads, of what they are added to, concatenated from
    or pooled from on the way there, and of their zero points. Where layers differ about a tensor, the widest wins. A
    tensor that leads to no layer is as wide as what it is made from. So with the same activation bits everywhere,
    this is the file that the same quantization writes with these widths.

    Args:
        graph: The graph of a file with QuantizeLinear and DequantizeLinear nodes; what it keeps in floating point
            stays so.

    Raises:
        EvaluationError: The graph does not say how wide its tensors are.
    """

    def __init__(self, graph: OpGraph) -> None:
        unsaid = graph.tensor_bytes.keys() - graph.widths.keys()
        if unsaid:
            raise EvaluationError(
                f"the graph does not say how wide {min(unsaid)!r} is; bit widths want a graph from op_graph"
            )
        self.graph = graph
        self.layers = layers_of(graph)
        self._position = {name: position for position, name in enumerate(self.layers)}
        self._deciders = self._find_deciders()

    def weight_layer(self, tensor: str) -> int | None:
        """The layer whose weight bits a stored tensor has."""
        return self._position.get(self._owner(tensor))

    def activation_layers(self, tensor: str) -> tuple[int, ...]:
        """The layers whose activation bits, the widest of them, a tensor has."""
        return self._deciders.get(self._owner(tensor), ())

    def graph_of(self, weight_bits: Sequence[int], activation_bits: Sequence[int]) -> OpGraph:
        """Returns the graph under these bit widths.

        Args:
            weight_bits: Of each of `layers`.
            activation_bits: Of what each of `layers` reads.

        Raises:
            EvaluationError: There is not one width for each layer, or a width is none.
        """
        for what, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
            self._check(what, bits)
        bits_of = {t: self._bits(t, weight_bits, activation_bits) for t in self.graph.widths}
        widths = self.graph.widths
        sizes = {name: width.n_bytes(bits_of[name]) for name, width in widths.items()}
        return replace(
            self.graph,
            kernels=tuple(self.kernel_of(kernel, bits_of) for kernel in self.graph.kernels),
            tensor_bytes={name: sizes[name] for name in self.graph.tensor_bytes},
            weight_bytes=sum(sizes.values()) - sum(sizes[name] for name in self.graph.tensor_bytes),
            widths={name: replace(width, bits=bits_of[name]) for name, width in widths.items()},
        )

    def kernel_of(self, kernel: Kernel, bits: Bits) -> Kernel:
        """Returns a kernel under the bits of the tensors that it names."""
        read = self._quantized(kernel.inputs)
        n_bytes = {name: self.graph.widths[name].n_bytes(bits[name]) for name in self.touched(kernel)}
        integer = kernel.dtype in _INTEGER
        return replace(
            kernel,
            dtype=_dtype([bits[t] for t in (*read, *self._quantized((kernel.weight,)))])
            if integer
            else kernel.dtype,
            weight_bytes=kernel.weight_bytes + self._growth(kernel, bits),
            input_bytes=sum(n_bytes[name] for name in kernel.inputs),
            output_bytes=sum(n_bytes[name] for name in kernel.outputs),
            weight_bits=bits[kernel.weight]
            if self.weight_layer(kernel.weight) is not None
            else kernel.weight_bits,
            activation_bits=max((bits[t] for t in read), default=32) if integer else kernel.activation_bits,
        )

    def touched(self, kernel: Kernel) -> tuple[str, ...]:
        """The tensors whose widths decide what a kernel costs."""
        return tuple(dict.fromkeys((*kernel.inputs, *kernel.outputs, *kernel.constants)))

    def _growth(self, kernel: Kernel, bits: Bits) -> int:
        """Bytes by which the kernel's constants are larger than in the graph."""
        widths = [(self.graph.widths[name], bits[name]) for name in kernel.constants]
        return sum(width.n_bytes(wanted) - width.n_bytes(width.bits) for width, wanted in widths)

    def _bits(self, tensor: str, weight_bits: Sequence[int], activation_bits: Sequence[int]) -> int:
        layer, deciders = self.weight_layer(tensor), self.activation_layers(tensor)
        if layer is not None:
            return weight_bits[layer]
        return max((activation_bits[i] for i in deciders), default=self.graph.widths[tensor].bits)

    def _owner(self, tensor: str) -> str:
        return (self.graph.widths[tensor].of or tensor) if tensor in self.graph.widths else tensor

    def _quantized(self, tensors: Sequence[str]) -> list[str]:
        return [t for t in tensors if t in self.graph.widths and self.graph.widths[t].is_integer]

    def _find_deciders(self) -> dict[str, tuple[int, ...]]:
        """Maps quantized activations to the layers that they lead to without being quantized anew."""
        found: dict[str, set[int]] = {}
        integer = [kernel for kernel in self.graph.kernels if kernel.dtype in _INTEGER]
        for kernel in reversed(integer):
            led_to = self._own_or(kernel, kernel.outputs, found)
            for tensor in self._quantized(kernel.inputs):
                found.setdefault(tensor, set()).update(led_to)
        for kernel in integer:
            made_from = self._own_or(kernel, kernel.inputs, found)
            for tensor in self._quantized(kernel.outputs):
                found[tensor] = found.get(tensor) or made_from
        return {tensor: tuple(sorted(layers)) for tensor, layers in found.items()}

    def _own_or(self, kernel: Kernel, tensors: Sequence[str], found: Mapping[str, set[int]]) -> set[int]:
        """The kernel's layer, or what decides the tensors beside it."""
        layer = self._position.get(kernel.weight)
        return {layer} if layer is not None else set().union(*(found.get(t, set()) for t in tensors))

    def _check(self, what: str, bits: Sequence[int]) -> None:
        if len(bits) != len(self.layers):
            raise EvaluationError(
                f"{what} has {len(bits)} entries, but the graph has {len(self.layers)} quantized layers"
            )
        wrong = next((layer for layer, b in zip(self.layers, bits, strict=True) if b not in WIDTHS), None)
        if wrong is not None:
            raise EvaluationError(f"{what} of {wrong!r} must be {WIDTHS[0]} to {WIDTHS[-1]} bits")


def _dtype(bits: Sequence[int]) -> DType:
    if max(bits) > 8:
        return "int16"
    return "int4" if min(bits) <= 4 else "int8"

"""Builds ONNX graphs node by node, with random weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spaces.stages.artifact import Artifact, InputSpec

if TYPE_CHECKING:
    import onnx

OPSET = 21
_POOL_SIZE = 1 << 20

Random = np.random.Generator


@dataclass(frozen=True)
class Place:
    """A tensor of the graph: its name and its shape without the batch axis."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))


@dataclass
class Sketch:
    """An ONNX graph under construction, with random weights.

    Attributes:
        random: Draws all that is random.
        nodes: Nodes so far.
        stored: Initializers so far.
        grain: Channel counts of this or more are multiples of it.
        stride_share: Probability that a convolution has stride 2.
        macs: Multiply-accumulates so far.
        weights: Number of weights so far.
        pool: Random values from which weights are taken.
    """

    random: Random
    nodes: "list[onnx.NodeProto]" = field(default_factory=list)
    stored: "list[onnx.TensorProto]" = field(default_factory=list)
    grain: int = 1
    stride_share: float = 0.25
    macs: float = 0
    weights: float = 0
    pool: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def add(self, op: str, inputs: Sequence[str], shape: tuple[int, ...], **attributes: Any) -> Place:
        """Adds a node with one output."""
        from onnx import helper

        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], f"n{len(self.nodes)}", **attributes))
        return Place(name, shape)

    def weight(self, shape: Sequence[int], scale: float) -> str:
        """Adds an initializer of random weights, and returns its name; values come from a pool, because drawing is slow."""
        from onnx import TensorProto, helper

        n = int(np.prod(shape))
        if not self.pool.size:
            self.pool = np.random.default_rng(0).standard_normal(_POOL_SIZE, np.float32)
        start = int(self.random.integers(_POOL_SIZE))
        values = np.take(self.pool, np.arange(start, start + n), mode="wrap") * np.float32(scale)
        name = f"w{len(self.stored)}"
        self.stored.append(
            helper.make_tensor(name, TensorProto.FLOAT, list(shape), values.tobytes(), raw=True)
        )
        self.weights += n
        return name

    def integers(self, values: Sequence[int]) -> str:
        """Adds an INT64 initializer, e.g. a shape, and returns its name."""
        from onnx import TensorProto, helper

        name = f"w{len(self.stored)}"
        self.stored.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], list(values)))
        return name

    def conv(self, x: Place, out: int, window: int, stride: int = 1, groups: int = 1) -> Place:
        """Adds a convolution, mostly with a bias, whose padding keeps the size (divided by the stride)."""
        channels, height, width = x.shape
        wide = (min(window, 2 * height - 1) | 1, min(window, 2 * width - 1) | 1)
        pads = [w // 2 for w in wide] * 2
        size = tuple((n - 1) // stride + 1 for n in (height, width))
        inner = channels // groups * wide[0] * wide[1]
        inputs = [x.name, self.weight((out, channels // groups, *wide), 1.4 / inner**0.5)]
        if self.random.random() < 0.9:
            inputs.append(self.weight((out,), 0.1))
        self.macs += out * size[0] * size[1] * inner
        return self.add(
            "Conv", inputs, (out, *size), kernel_shape=wide, strides=[stride] * 2, pads=pads, group=groups
        )

    def gemm(self, x: Place, out: int) -> Place:
        """Adds a linear layer on `(n,)`: a Gemm with weights as torch stores them, or transposed, or a MatMul and an Add."""
        (inner,) = x.shape
        bias, style = self.weight((out,), 0.1), self.random.random()
        self.macs += inner * out
        if style < 0.2:
            product = self.add("MatMul", [x.name, self.weight((inner, out), inner**-0.5)], (out,))
            return self.add("Add", [product.name, bias], (out,))
        transposed = int(style < 0.8)
        shape = (out, inner) if transposed else (inner, out)
        return self.add("Gemm", [x.name, self.weight(shape, inner**-0.5), bias], (out,), transB=transposed)

    def matmul(self, x: Place, out: int) -> Place:
        """Adds a linear layer on `(rows, n)`, as in networks on tokens: a MatMul and an Add."""
        rows, inner = x.shape
        self.macs += rows * inner * out
        product = self.add("MatMul", [x.name, self.weight((inner, out), inner**-0.5)], (rows, out))
        return self.add("Add", [product.name, self.weight((out,), 0.1)], (rows, out))

    def artifact(self, shape: tuple[int, ...], output: Place) -> Artifact:
        """Returns the graph as an artifact."""
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["n", *output.shape])],
            self.stored,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        return Artifact.onnx(model.SerializeToString(), InputSpec(shape, "input"))


def log_int(random: Random, low: float, high: float) -> int:
    """Draws a log-uniform whole number."""
    return round(float(np.exp(random.uniform(np.log(low), np.log(max(high, low))))))


def channels(sketch: Sketch, low: float, high: float) -> int:
    """Draws a log-uniform channel count, a multiple of the network's grain."""
    n = log_int(sketch.random, low, high)
    return max(1, n if n < sketch.grain else n // sketch.grain * sketch.grain)

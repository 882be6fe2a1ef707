"""What TensorFlow Lite Micro itself needs for the MLPerf Tiny networks: the measured figures in tiny_memory.py.

Needs `tflite-micro` from PyPI, which this project does not depend on. Run from the root of the repository::

    python tests/benchmarks/tflm_arena.py --networks ../shared/data/mlperf_tiny

Writes int8 .tflite models of the networks' shapes (random weights: memory does not depend on them) and lets the
interpreter print its allocations. "head" is what its planner placed, "tail" its own structures.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from evaluators.cost.graph import Kernel, OpGraph, op_graph
from spaces.stages.artifact import Artifact, InputSpec

NETWORKS = {
    "ad01_fp32.onnx": (640,),
    "kws_ref_model_float32.onnx": (49, 10, 1),
    "pretrainedResnet.onnx": (32, 32, 3),
    "vww_96_float.onnx": (96, 96, 3),
}
CODES, OPTIONS, TYPES = schema.BuiltinOperator, schema.BuiltinOptions, schema.TensorType
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


class Writer:
    """Writes a graph of convolutions, products, sums and pools as a .tflite model.

    Args:
        graph: The network.
        shape: Its input, batch included.
    """

    def __init__(self, graph: OpGraph, shape: tuple[int, ...]) -> None:
        self._model, self._graph = schema.ModelT(), schema.SubGraphT()
        self._model.version, self._model.subgraphs = 3, [self._graph]
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []
        self._graph.tensors, self._graph.operators = [], []
        self._codes: dict[int, int] = {}
        self._rng = np.random.default_rng(0)
        name = graph.inputs[0]
        self._shapes, self._ids = {name: shape}, {name: self._tensor(shape)}
        for kernel in graph.kernels:
            self._write(kernel)
        self._graph.inputs, self._graph.outputs = [self._ids[name]], [self._ids[graph.outputs[0]]]

    def bytes(self) -> bytes:
        """Returns the file."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _write(self, kernel: Kernel) -> None:
        if kernel.kind in ("conv", "pointwise", "depthwise"):
            self._convolution(kernel)
        elif kernel.kind == "fully_connected":
            self._product(kernel)
        elif kernel.kind == "pool":
            self._pool(kernel)
        elif kernel.op == "Add":
            self._same(kernel, CODES.ADD, OPTIONS.AddOptions, schema.AddOptionsT())
        elif kernel.op == "Softmax":
            options = schema.SoftmaxOptionsT()
            options.beta = 1.0
            self._same(kernel, CODES.SOFTMAX, OPTIONS.SoftmaxOptions, options)
            out = self._graph.tensors[-1].quantization
            out.scale, out.zeroPoint = [1 / 256], [-128]
        else:
            raise SystemExit(f"{kernel.name}: no rule for {kernel.op}")

    def _convolution(self, kernel: Kernel) -> None:
        g = kernel.geometry
        assert g is not None
        depthwise, c = kernel.kind == "depthwise", g.out_channels
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        if depthwise:
            options.depthMultiplier = 1
        options.strideH, options.strideW = g.stride
        options.dilationHFactor = options.dilationWFactor = 1
        same = all(out == -(-n // s) for out, n, s in zip(g.out_size, g.in_size, g.stride, strict=True))
        options.padding = SAME if same else VALID
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        shape = (1, *g.window, c) if depthwise else (c, *g.window, g.in_channels)
        weights = [
            self._constant(shape, np.int8, c, 3 if depthwise else 0),
            self._constant((c,), np.int32, c),
        ]
        code, kind = (
            (CODES.DEPTHWISE_CONV_2D, OPTIONS.DepthwiseConv2DOptions)
            if depthwise
            else (CODES.CONV_2D, OPTIONS.Conv2DOptions)
        )
        out = self._output(kernel, (1, *g.out_size, c))
        self._operator(code, 3, [self._ids[kernel.inputs[0]], *weights], out, kind, options)

    def _product(self, kernel: Kernel) -> None:
        g = kernel.geometry
        assert g is not None
        source = kernel.inputs[0]
        read = self._ids[source]
        if len(self._shapes[source]) != 2:
            flat = (1, g.in_channels)
            shape, options = self._constant((2,), np.int32, values=np.array(flat)), schema.ReshapeOptionsT()
            options.newShape, view = list(flat), self._tensor(flat)
            self._operator(CODES.RESHAPE, 1, [read, shape], view, OPTIONS.ReshapeOptions, options)
            read = view
        weights = self._constant((g.out_channels, g.in_channels), np.int8)
        bias = self._constant((g.out_channels,), np.int32)
        out, options = self._output(kernel, (1, g.out_channels)), schema.FullyConnectedOptionsT()
        self._operator(
            CODES.FULLY_CONNECTED, 4, [read, weights, bias], out, OPTIONS.FullyConnectedOptions, options
        )

    def _pool(self, kernel: Kernel) -> None:
        _, height, width, channels = self._shapes[kernel.inputs[0]]
        options = schema.Pool2DOptionsT()
        options.padding = VALID
        options.strideH = options.filterHeight = height
        options.strideW = options.filterWidth = width
        out = self._output(kernel, (1, 1, 1, channels))
        read = self._ids[kernel.inputs[0]]
        self._operator(CODES.AVERAGE_POOL_2D, 2, [read], out, OPTIONS.Pool2DOptions, options)

    def _same(self, kernel: Kernel, code: int, kind: int, options: Any) -> None:
        out = self._output(kernel, self._shapes[kernel.inputs[0]])
        self._operator(code, 2, [self._ids[t] for t in kernel.inputs], out, kind, options)

    def _output(self, kernel: Kernel, shape: tuple[int, ...]) -> int:
        name = kernel.outputs[0]
        self._shapes[name], self._ids[name] = shape, self._tensor(shape)
        return self._ids[name]

    def _operator(
        self, code: int, version: int, reads: list[int], writes: int, kind: int, options: Any
    ) -> None:
        if code not in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
            self._codes[code] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(entry)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self._codes[code], reads, [writes]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self._graph.operators.append(operator)

    def _constant(
        self, shape: tuple[int, ...], dtype: type, scales: int = 1, axis: int = 0, values: Any = None
    ) -> int:
        if values is None:
            values = self._rng.integers(-127, 127, shape)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.astype(dtype).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        # A bias has the product of the other two scales.
        kind, scale = (TYPES.INT8, 0.01) if dtype is np.int8 else (TYPES.INT32, 0.05 * 0.01)
        return self._tensor(shape, kind, len(self._model.buffers) - 1, [scale] * scales, axis)

    def _tensor(
        self,
        shape: tuple[int, ...],
        kind: int = TYPES.INT8,
        buffer: int = 0,
        scales: Sequence[float] = (0.05,),
        axis: int = 0,
    ) -> int:
        tensor, quantization = schema.TensorT(), schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = list(scales), [0] * len(scales)
        quantization.quantizedDimension = axis
        tensor.name, tensor.shape, tensor.type = f"t{len(self._graph.tensors)}", list(shape), kind
        tensor.buffer, tensor.quantization = buffer, quantization
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def main() -> None:
    """Prints the interpreter's own account."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=Path, required=True, help="folder of the MLPerf Tiny ONNX files")
    folder = parser.parse_args().networks
    for file, shape in NETWORKS.items():
        artifact = Artifact.onnx((folder / file).read_bytes(), InputSpec(shape, "input_1"))
        model = Writer(op_graph(artifact), (1, *shape)).bytes()
        print(file, flush=True)
        runtime.Interpreter.from_bytes(model, arena_size=1 << 20).print_allocations()
        sys.stdout.flush()


if __name__ == "__main__":
    main()

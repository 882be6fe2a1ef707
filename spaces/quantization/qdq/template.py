"""The quantized file of one graph structure, with holes where candidates differ: onnxruntime's tool runs once for each.

The tool is run on an outline of the network (next to no weights) with grids that no two tensors share; its file is cut at
the numbers that follow from the grids, and the holes are filled with these very grids again. Only if that gives the
tool's file, byte for byte, is the skeleton used, with the network's own sizes: so every file is the tool's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from spaces.errors import StageError
from spaces.models.onnx import protobuf_encoding as protobuf
from spaces.quantization.plan.bias_correction import set_biases
from spaces.quantization.plan.int32_biases import Biases, int32_biases
from spaces.quantization.plan.plan import Plan, Settings
from spaces.quantization.plan.source import Source, outlined
from spaces.quantization.qdq.ort_adapter import quantized_model, reads_shapes
from spaces.quantization.qdq.slots import FloatBiases, Numbers, UnlikeToolError
from spaces.quantization.qdq.split import Cut, Names, cut, names_of
from spaces.quantization.schemes.scheme import Grid


@dataclass(frozen=True)
class Template:
    """A serialized model with holes.

    Attributes:
        pieces: The file in pieces.
        biases: The int32 biases among the holes.
    """

    pieces: Cut
    biases: Biases

    @property
    def n_bytes(self) -> int:
        """Memory that it takes, in bytes."""
        return sum(map(len, (self.pieces.before, *self.pieces.graph, self.pieces.after)))

    def filled(self, numbers: Numbers) -> bytes:
        """Returns the file with these numbers.

        Raises:
            UnlikeToolError: The tool would do something else with such numbers.
        """
        pieces, slots = list(self.pieces.graph), self.pieces.slots
        weights = [name for _, name in slots.get("weight quantized", ())]
        for kind, content in numbers.contents(self.biases, weights).items():
            for index, name in slots.get(kind, ()):
                pieces[index] = content(name)
        length = sum(map(len, pieces))
        return b"".join(
            (self.pieces.before, protobuf.head(protobuf.GRAPH, length), *pieces, self.pieces.after)
        )


def tool_model(source: Source, plan: Plan, settings: Settings, corrected: FloatBiases | None) -> bytes:
    """Returns the serialized model that onnxruntime's tool makes.

    Args:
        source: The float model.
        plan: The grid of every tensor.
        settings: The knobs.
        corrected: Biases that take the place of the float model's; None to leave these.

    Raises:
        StageError: The tool fails.
    """
    proto = source.artifact.proto()
    if corrected is not None:
        set_biases(proto, source.network.layers, corrected)
    quantized = quantized_model(proto, source.network, plan, settings)
    return bytes(quantized.SerializeToString(deterministic=True))


def build_template(
    source: Source, plan: Plan, settings: Settings, corrected: FloatBiases | None
) -> Template | None:
    """Returns the skeleton of a structure; None if the tool's file cannot be made from one.

    Args:
        source: The float model.
        plan: The plan of any candidate of this structure.
        settings: Its knobs.
        corrected: Its biases, if they are corrected.

    """
    names = names_of(source, plan, corrected)
    if names is None:
        return None
    small, probe, some = source, _distinct(plan), corrected
    if not reads_shapes(source.opset, settings):
        small, probe, some = _outline(source, probe, corrected)
    try:
        data = tool_model(small, probe, settings, some)
        few = names_of(small, probe, some) or names
        found = _template(data, few, small, some)
        if found.pieces.unknown:  # what the tool has made on its own must not follow from the grids
            # one by one: moved together, a scale and a zero point might cancel out
            for moved in (_distinct(plan, scales=1), _distinct(plan, zeros=1)):
                other = tool_model(small, replace(moved, weights=probe.weights), settings, some)
                if cut(other, few, small, small.biases | dict(some or {})).unknown != found.pieces.unknown:
                    return None
        if found.filled(Numbers(small, probe, settings, small.biases | dict(some or {}))) != data:
            return None
        return _template(data, names, source, corrected)
    except (StageError, KeyError, ValueError, UnlikeToolError):  # a form of file that is not known here
        return None


def _template(data: bytes, names: Names, source: Source, corrected: FloatBiases | None) -> Template:
    import onnx

    graph = onnx.load_model_from_string(data).graph
    biases = int32_biases(graph, source, {name: place.name for name, place in names.places.items()})
    return Template(cut(data, names, source, source.biases | dict(corrected or {})), biases)


def _distinct(plan: Plan, scales: int = 0, zeros: int = 0) -> Plan:
    """Returns a plan whose activations all have different scales, moved by `scales` sevenths and `zeros` times 3 steps."""
    grids = {}
    for i, (tensor, grid) in enumerate(plan.activations.items()):
        factor = np.float32(1 + (i + 1) / (64 + len(plan.activations)) + scales / 7)
        low, high = -(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1
        zero = low + (grid.zero_point - low + 7 * i + 3 * zeros) % (high - low)
        grids[tensor] = replace(grid, scale=np.asarray(grid.scale * factor), zero_point=np.asarray(zero))
    return replace(plan, activations=grids)


def _outline(
    source: Source, plan: Plan, corrected: FloatBiases | None
) -> tuple[Source, Plan, FloatBiases | None]:
    """Returns the same with next to no weights: the tool takes long over these, and its graph is the same."""
    grids: Mapping[str, Grid] = {
        name: replace(grid, scale=outlined(grid.scale), zero_point=outlined(grid.zero_point))
        for name, grid in plan.weights.items()
    }
    some = None if corrected is None else {name: outlined(bias) for name, bias in corrected.items()}
    return source.outline, replace(plan, weights=grids), some

"""Templates of quantized files, with slots where candidates differ: the tool runs once per structure.

onnxruntime's tool runs on an outline of the network (with very small weights) and with different grids for
all tensors. Its file is cut at the numbers that follow from the grids, and the slots are filled with the same
grids again. The template is used, with the network's own sizes, only if this gives the tool's file byte for
byte. So every file equals the tool's.
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
    """A serialized model with slots.

    Attributes:
        pieces: The file, cut at its slots.
        biases: The int32 biases among the slots.
    """

    pieces: Cut
    biases: Biases

    @property
    def n_bytes(self) -> int:
        """Size in memory, in bytes."""
        return sum(map(len, (self.pieces.before, *self.pieces.graph, self.pieces.after)))

    def filled(self, numbers: Numbers) -> bytes:
        """Returns the file with these numbers in the slots.

        Raises:
            UnlikeToolError: The tool would treat these numbers differently.
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
        corrected: Biases that replace those of the float model; None to keep these.

    Raises:
        StageError: The tool fails.
    """
    # The tool clips to the range of the storage type: weights of fewer bits are on their grids before.
    narrow = {
        name: grid.dequantized(source.weights[name])
        for name, grid in plan.weights.items()
        if grid.bits != grid.stored_bits
    }
    proto = source.with_weights(narrow).artifact.proto()
    if corrected is not None:
        set_biases(proto, source.network.layers, corrected)
    quantized = quantized_model(proto, source.network, plan, settings)
    return bytes(quantized.SerializeToString(deterministic=True))


def build_template(
    source: Source, plan: Plan, settings: Settings, corrected: FloatBiases | None
) -> Template | None:
    """Returns the template of a structure; None if the tool's file cannot be reproduced from a template.

    Args:
        source: The float model.
        plan: The plan of any candidate of this structure.
        settings: The candidate's knobs.
        corrected: The candidate's corrected biases; None without bias correction.
    """
    names = names_of(source, plan, corrected)
    if names is None:
        return None
    small, probe, small_biases = source, _distinct(plan), corrected
    if not reads_shapes(source.opset, settings):
        small, probe, small_biases = _outline(source, probe, corrected)
    try:
        data = tool_model(small, probe, settings, small_biases)
        small_names = names_of(small, probe, small_biases) or names
        template = _template(data, small_names, small, small_biases)
        floats = small.biases | dict(small_biases or {})
        if template.pieces.unknown:  # these initializers must not depend on the grids
            # One change at a time: the effects of a scale and a zero point might cancel.
            for moved in (_distinct(plan, scales=1), _distinct(plan, zeros=1)):
                other = tool_model(small, replace(moved, weights=probe.weights), settings, small_biases)
                if cut(other, small_names, small, floats).unknown != template.pieces.unknown:
                    return None
        if template.filled(Numbers(small, probe, settings, floats)) != data:
            return None
        return _template(data, names, source, corrected)
    except (StageError, KeyError, ValueError, UnlikeToolError):  # a file of an unknown form
        return None


def _template(data: bytes, names: Names, source: Source, corrected: FloatBiases | None) -> Template:
    import onnx

    graph = onnx.load_model_from_string(data).graph
    biases = int32_biases(graph, source, {name: slot.name for name, slot in names.slots.items()})
    return Template(cut(data, names, source, source.biases | dict(corrected or {})), biases)


def _distinct(plan: Plan, scales: int = 0, zeros: int = 0) -> Plan:
    """Returns a plan with different grids for all activations.

    Args:
        plan: The plan.
        scales: Adds this many sevenths to the factor of every scale.
        zeros: Moves every zero point by 3 times this many steps.
    """
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
    """Returns the arguments with very small weights: the tool is faster, and its graph is the same."""
    grids: Mapping[str, Grid] = {
        name: replace(grid, scale=outlined(grid.scale), zero_point=outlined(grid.zero_point))
        for name, grid in plan.weights.items()
    }
    small_biases = None if corrected is None else {name: outlined(bias) for name, bias in corrected.items()}
    return source.outline, replace(plan, weights=grids), small_biases

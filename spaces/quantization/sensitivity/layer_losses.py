"""Sensitivities one layer and width at a time: the loss of the output with only that layer's weight quantized."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError, unknown_name
from spaces.quantization.calibration.clipping.methods import clippings
from spaces.quantization.plan.source import Source, Sources
from spaces.quantization.plan.weight_grids import WeightGrids, WeightRule
from spaces.quantization.schemes.scheme import Grid, scheme_of
from spaces.quantization.sensitivity.feedback import Feedback
from spaces.quantization.sensitivity.output_losses import (
    GRADIENT_LOSSES,
    OUTPUT_LOSSES,
    Floats,
    check_sensitivity,
)
from spaces.quantization.sensitivity.parts import (
    Arrays32,
    Part,
    first_nodes,
    judged,
    outputs_by_part,
    read_after,
    values_by_batch,
)
from spaces.stages.artifact import Artifact, Split
from spaces.stages.stage import StageContext

ROUNDINGS = ("nearest", "gptq")
MAX_BATCH_BYTES = 64 * 2**20  # activations of a batch that the parts begin with, about
MAX_BATCH = 64

DequantizedWeight = Callable[[str, int], NDArray[np.float32]]
"""Maps a layer and a width in bits to the layer's quantized and dequantized weight."""

Losses = dict[str, dict[str, dict[int, float]]]
"""Sensitivity to layer to width to mean loss per example."""


def layer_losses(
    source: Source,
    weight: DequantizedWeight,
    widths: Mapping[str, Sequence[int]],
    sensitivities: Sequence[str],
    n_examples: int,
    context: StageContext,
    key: object = None,
) -> Losses:
    """Returns the loss of the float network with one layer's weight quantized, for each layer and width, cached.

    The network runs from the quantized layer's part on: `parts.N_PARTS` parts begin with cached activations.

    Args:
        source: The float model.
        weight: Quantizes and dequantizes a layer's weight.
        widths: Layer to widths in bits.
        sensitivities: Names of `OUTPUT_LOSSES`; they share the runs.
        n_examples: Calibration examples.
        context: Calibration data and cache.
        key: What the quantized weights depend on besides the float weights.

    Raises:
        ConfigError: A sensitivity does not fit the output.
        StageError: There is no calibration data.
    """
    losses = [OUTPUT_LOSSES[name] for name in sensitivities]
    if context.calibration is None:
        raise StageError("sensitivities are measured on calibration examples, but the stage was given none")
    split, pairs = context.calibration, [(layer, w) for layer, row in widths.items() for w in row]
    names = tuple(sensitivities)
    cached = digest_of(
        "losses", source.key, source.artifact.input.output.name, split.digest, n_examples, names, pairs, key
    )

    def build() -> dict[str, NDArray[np.float64]]:
        totals = _Network(source, set(widths), split).totals(pairs, weight, losses, n_examples)
        return {"losses": totals}

    table = context.cache.arrays(f"losses-{cached}", build)["losses"]
    found: Losses = {name: {layer: {} for layer in widths} for name in names}
    for (layer, width), row in zip(pairs, table.tolist(), strict=True):
        for name, loss in zip(names, row, strict=True):
            found[name][layer][width] = loss
    return found


def measured_layers(
    artifact: Artifact,
    sensitivity: str,
    widths: Mapping[str, Sequence[int]],
    n_examples: int,
    grid: Mapping[str, str],
    context: StageContext,
) -> dict[str, dict[int, float]]:
    """Returns the layers' losses by width.

    Args:
        artifact: The float ONNX model.
        sensitivity: Name of the loss.
        widths: Layer to widths in bits.
        n_examples: Calibration examples.
        grid: `scheme`, `granularity`, `clipping` and `rounding` (`nearest` or `gptq`) of the weights.
        context: Calibration data and cache.

    Raises:
        ConfigError: The sensitivity is unknown.
        StageError: A layer or a value of the grid is unknown, or the model cannot be quantized, or has no gradients.
    """
    check_sensitivity(sensitivity)
    source = Sources().source(artifact, False, context)
    rounding = OneByOne(source, grid, context, n_examples)
    for layer in widths:
        if layer not in source.weights:
            raise StageError(unknown_name("layer", layer, source.weights, "allocator"))
    if sensitivity in GRADIENT_LOSSES:
        return _by_gradients(source, rounding, sensitivity, widths, n_examples, context)
    key = sorted(grid.items())
    found = layer_losses(source, rounding.weight, widths, [sensitivity], n_examples, context, key)
    return found[sensitivity]


def _by_gradients(
    source: Source,
    rounding: "OneByOne",
    sensitivity: str,
    widths: Mapping[str, Sequence[int]],
    n_examples: int,
    context: StageContext,
) -> dict[str, dict[int, float]]:
    from spaces.quantization.sensitivity.gradient_losses import Gradients

    if context.teacher is None or context.calibration is None:
        raise StageError(
            f"allocator.sensitivity={sensitivity} needs gradients of a torch network and calibration examples; use kl, sqnr, mse or ssim"
        )
    weights = {layer: source.weights[layer] for layer in widths}
    axes = {layer.name: layer.weight_axis_out for layer in source.network.layers}
    gradients = Gradients(context.teacher, weights, axes, context.calibration, n_examples, context.loss)
    errors = {
        (layer, w): rounding.weight(layer, w) - weights[layer] for layer, row in widths.items() for w in row
    }
    found = gradients.fisher(errors) if sensitivity == "fisher" else gradients.hessian(errors, context.seed)
    return {layer: {w: found[layer, w] for w in row} for layer, row in widths.items()}


class OneByOne:
    """Weights of one layer at a time on their grids.

    Args:
        source: The float model.
        grid: `scheme`, `granularity`, `clipping` and `rounding`; `nearest` without the last one.
        context: Calibration data, for other roundings.
        n_examples: Calibration examples, likewise.
    """

    def __init__(
        self, source: Source, grid: Mapping[str, str], context: StageContext, n_examples: int
    ) -> None:
        scheme, per_channel = scheme_of(grid["scheme"]), grid["granularity"] == "channel"
        if grid["clipping"] not in clippings():
            raise StageError(
                unknown_name("clipping", grid["clipping"], clippings(), "allocator.grid.clipping")
            )
        rounding = grid.get("rounding", "nearest")
        if rounding not in ROUNDINGS:
            raise StageError(unknown_name("rounding", rounding, ROUNDINGS, "allocator.grid.rounding"))
        self._feedback = Feedback(source, context, n_examples) if rounding == "gptq" else None
        self.source, self._per_channel = source, per_channel
        self._rule = scheme.channel_weights if per_channel else scheme.weights
        self._share = clippings()[grid["clipping"]].weight_share
        self._grids = WeightGrids()
        # activations so coarse that no int32 bias bounds the scales of weights
        coarse = Grid(np.array(1e30, np.float32), np.array(0), 8)
        self._unbounded = dict.fromkeys((x.input for x in source.network.layers), coarse)
        self._cached: dict[tuple[str, int], NDArray[np.float32]] = {}

    def weight(self, layer: str, bits: int) -> NDArray[np.float32]:
        """Returns a layer's quantized and dequantized weight."""
        if (layer, bits) not in self._cached:
            rule = WeightRule(self._rule, self._per_channel, bits, False, self._share)
            weight = self.source.weights[layer]
            grid = self._grids.grid(self.source, layer, rule, self._unbounded)
            self._cached[layer, bits] = (
                self._feedback.rounded(layer, grid) if self._feedback else grid.dequantized(weight)
            )
        return self._cached[layer, bits]


class _Network:
    """The network in parts, each with the weights of its layers as inputs.

    Args:
        source: The float model.
        layers: The layers whose weights change.
        split: The examples.
    """

    def __init__(self, source: Source, layers: set[str], split: Split) -> None:
        self._source, self._split, self._layers = source, split, layers
        proto = judged(source)
        nodes = list(proto.graph.node)
        self._firsts = first_nodes(len(nodes))
        outputs = outputs_by_part(nodes, self._firsts)
        # a weight that two nodes share is an input of the first one's part, which contains the other
        self._part_of: dict[str, int] = {}
        for layer in source.network.layers:
            part = next(k for k, names in enumerate(outputs) if layer.output in names)
            self._part_of[layer.name] = min(part, self._part_of.get(layer.name, part))
        self._read = {name for first in self._firsts for name in read_after(proto, first)}
        self._output = proto.graph.output[0].name
        self._parts: dict[int, Part] = {}

    def totals(
        self,
        pairs: Sequence[tuple[str, int]],
        weight: DequantizedWeight,
        losses: Sequence[Callable[[Floats, Floats], Floats]],
        n_examples: int,
    ) -> Floats:
        """Returns the mean losses per example, `(n_pairs, n_losses)`."""
        sums, n_seen = np.zeros((len(pairs), len(losses))), 0
        size = self._batch_size()
        for values, n in values_by_batch(self._source, self._split, self._read, size, n_examples):
            reference = values[self._output][:n].astype(np.float64)
            for i, (layer, width) in enumerate(pairs):
                output = self._run(values, layer, weight(layer, width))[:n].astype(np.float64)
                sums[i] += [loss(reference, output).sum() for loss in losses]
            n_seen += n
        return sums / max(n_seen, 1)

    def _batch_size(self) -> int:
        """Returns the number of examples whose inputs, times the number of parts, fit the memory."""
        n_bytes = 4 * self._source.artifact.input.size * len(self._firsts) * 4
        return max(1, min(MAX_BATCH, MAX_BATCH_BYTES // n_bytes))

    def _run(self, values: Arrays32, layer: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        k = self._part_of[layer]
        if k not in self._parts:
            members = {name for name, part in self._part_of.items() if part == k and name in self._layers}
            self._parts[k] = Part(self._source, self._firsts[k], (), members, values)
        part = self._parts[k]
        feeds = {name: values[name] for name in part.reads}
        return part.run(feeds | {layer: weight})[0]

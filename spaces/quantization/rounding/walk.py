"""Rounds a network part by part: each is fitted to what the float network makes, given what the rounded parts before it make.

::

    float network      x ──part 1──> t1 ──part 2──> t2 ...          targets
    quantized network  x ──part 1──> q1 ──part 2──> q2 ...          part k is rounded given q(k-1), to come close to t(k)

AdaRound (Nagel et al., arXiv 2004.10568, section 3.3) and BRECQ (Li et al., arXiv 2102.05426) do so; here any ONNX graph is walked
through with the values of all calibration examples, each node twice, whatever the number of layers.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spaces.digest import digest_of
from spaces.errors import StageError
from spaces.models.layers import RECURRENT, Layer
from spaces.models.onnx.torch_graph.graph import TorchGraph, Values
from spaces.quantization.plan.plan import Plan
from spaces.quantization.plan.source import Source
from spaces.quantization.rounding.base import Method
from spaces.quantization.rounding.grids import TorchGrid
from spaces.quantization.rounding.segments import Borders, Segment, borders_of, segments_of, whole
from spaces.quantization.rounding.tuning import Tuning
from spaces.quantization.rounding.unit import BATCH, Quantized, Unit
from spaces.quantization.schemes.scheme import Grid
from spaces.stages.cache import Arrays
from spaces.stages.inputs import joined_inputs
from spaces.stages.stage import StageContext
from spaces.task_losses import task_loss

if TYPE_CHECKING:
    import torch

Floats = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Rounded:
    """A rounded network.

    Attributes:
        weights: Weights by layer name, on their grids.
        plan: The plan with their grids, and with those of activations.
        biases: Biases by name that replace the float network's.
        errors: By the names of a part's layers, joined by a comma: the mean squared error of its outputs, relative to their mean square, with
            the nearest rounding and as rounded, on the calibration examples.
    """

    weights: Floats
    plan: Plan
    biases: Floats
    errors: dict[str, tuple[float, float]]


def examples_of(source: Source, context: StageContext, n_images: int, device: "torch.device") -> Values:
    """Returns calibration examples as the network's inputs by name. Raises StageError if there are none."""
    import torch

    split = context.calibration
    if not split:
        raise StageError("quantization needs calibration examples, but the stage was given none")
    joined = joined_inputs([inputs for inputs, _ in split.batches(BATCH, min(n_images, len(split)))])
    feeds = source.artifact.input.feeds(joined)
    return {name: torch.from_numpy(np.ascontiguousarray(a)).to(device) for name, a in feeds.items()}


@dataclass(frozen=True)
class Walk:
    """A network to round.

    Attributes:
        source: The float network.
        plan: The grids.
        layers_only: Whether only layers read quantized activations.
        n_images: Number of calibration examples.
        context: Calibration data, cache, seed and accelerator.
        left_float: Names of the layers of the plan that the file will keep float nevertheless.
        reduced: Names of the layers whose weights use one bit less than their grid has.
        fixed_scales: Whether scales of weights cannot take any value.
        network_steps: Steps of tuning the network as a whole after its parts are rounded.
    """

    source: Source
    plan: Plan
    layers_only: bool
    n_images: int
    context: StageContext
    left_float: frozenset[str] = frozenset()
    reduced: frozenset[str] = frozenset()
    fixed_scales: bool = False
    network_steps: int = 0

    def rounded(self, method: Method | None) -> Rounded:
        """Returns the network rounded by a method, to nearest without one; parts that are in the cache are not rounded again.

        Raises:
            StageError: The network has parts that torch cannot run.
        """
        from spaces.models.torch.accelerator import device_of

        device = device_of(self.context.accelerator)
        graph = TorchGraph(self.source.artifact.proto(), device)
        values = examples_of(self.source, self.context, self.n_images, device)
        try:
            borders = borders_of(graph, {name: value[:3] for name, value in values.items()})
        except Exception as error:  # of torch, or of onnxruntime for an operator that torch lacks
            raise StageError(
                f"quantize.rounding: the network cannot be run by torch ({error}); use rounding: nearest"
            ) from error
        layers = [
            x for x in self.source.network.layers if x.name in self._grids() and x.op_type not in RECURRENT
        ]
        progress = _Progress(self, graph, borders, self._start(graph, device))
        if method is not None:
            progress.through(segments_of(graph, layers, borders, method.per_block), values, method)
        if self.network_steps:
            progress.tune(whole(graph, layers), values)
        return progress.result()

    def _start(self, graph: TorchGraph, device: "torch.device") -> Quantized:
        """Returns the network with all weights rounded to nearest."""
        grids = {
            name: TorchGrid.of(grid, self.source.weights[name].ndim, device, name in self.reduced)
            for name, grid in self._grids().items()
        }
        floats = set(self.plan.float_nodes)
        operators = [x for x in self.source.network.operators if x.name not in floats]
        read = {t for x in operators for t in x.inputs}
        made = {t for x in operators if not self.layers_only for t in x.outputs} - set(graph.outputs)
        follows = self.source.network.follows
        return Quantized(
            weights={name: grid.quantized(graph.constants[name]) for name, grid in grids.items()},
            grids=grids,
            biases={},
            activations={
                tensor: TorchGrid.of(grid, 0, device)
                for tensor, grid in self.plan.activations.items()
                if tensor in read | made and tensor not in follows
            },
            layers_only=self.layers_only,
            layer_nodes=frozenset(x.node for x in self.source.network.layers if x.name in grids),
            fixed_scales=self.fixed_scales,
        )

    def _grids(self) -> dict[str, Grid]:
        """Returns the grids of the weights that the file stores as integers, by layer name."""
        return {name: grid for name, grid in self.plan.weights.items() if name not in self.left_float}


@dataclass
class _Progress:
    walk: Walk
    graph: TorchGraph
    borders: Borders
    quantized: Quantized
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self) -> None:
        walk = self.walk
        assert walk.context.calibration is not None
        self.key = digest_of(
            walk.source.key, walk.context.calibration.digest, walk.n_images, walk.context.seed, walk.layers_only, walk.fixed_scales
        )  # fmt: skip

    def through(self, segments: list[Segment], values: Values, method: Method) -> None:
        """Rounds one segment after the other."""
        import torch

        done: set[str] = set()
        floats, quantized = dict(values), dict(values)
        self.key = digest_of(self.key, method.key)
        for segment in segments:
            layers = tuple({x.name: x for x in segment.layers if x.name not in done}.values())
            done |= {x.name for x in layers}
            unit = self._unit(segment, layers, floats, quantized)
            self.key = digest_of(self.key, *self._grid_keys(segment))
            if layers:
                solved = self.walk.context.cache.arrays(
                    f"rounded-{self.key}",
                    lambda: self._solve(unit, method),  # noqa: B023
                )
                _restore(unit, solved)
                before, after = solved["errors"].tolist()
                self.errors[", ".join(x.name for x in layers)] = (before, after)
            with torch.no_grad():
                quantized.update(
                    _joined((unit.run(batch) for batch in unit.batches(unit.inputs)), unit.targets)
                )
            floats.update(unit.targets)
            for table in (floats, quantized):
                for name in [n for n in table if n not in segment.alive]:
                    del table[name]

    def tune(self, network: Segment, values: Values) -> None:
        """Tunes the network as a whole."""
        walk = self.walk
        loss = task_loss(walk.context.loss)
        output = walk.source.artifact.input.output.name or self.graph.outputs[0]
        tuning = Tuning(walk.network_steps, output, None if loss is None else loss.class_axis)
        unit = Unit(
            self.graph, network, network.layers, self.graph.constants, self.quantized, values, values, {}, self.borders.static,
            walk.context.seed,
        )  # fmt: skip
        self.key = digest_of(self.key, tuning.key, *self._grid_keys(network))

        def solve() -> Arrays:
            tuning.solve(unit)
            return _stored(unit)

        _restore(unit, walk.context.cache.arrays(f"tuned-{self.key}", solve))

    def _unit(self, segment: Segment, layers: tuple[Layer, ...], floats: Values, quantized: Values) -> Unit:
        import torch

        unit = Unit(
            self.graph, segment, layers, self.graph.constants, self.quantized,
            {t: quantized[t] for t in segment.inputs if t in quantized},
            {t: floats[t] for t in segment.inputs if t in floats},
            {}, self.borders.static, self.walk.context.seed,
        )  # fmt: skip
        wanted = [o for o in segment.outputs if o in self.borders.batched]
        with torch.no_grad():
            made = (
                self.graph.run(segment.nodes, {**self.borders.static, **batch})
                for batch in unit.batches(unit.float_inputs)
            )
            unit.targets.update(_joined(made, wanted))
        return unit

    def _grid_keys(self, segment: Segment) -> list[object]:
        """Returns what the segment in the quantized network depends on, besides what it reads."""
        plan, walk = self.walk.plan, self.walk
        nodes = {node.name for node in segment.nodes}
        names = [
            x.name for x in walk.source.network.layers if x.node in nodes and x.name in self.quantized.grids
        ]
        read = [t for node in segment.nodes for t in node.inputs if t in plan.activations]
        grids = (*(plan.weights[name] for name in names), *(plan.activations[t] for t in read))
        return [*(name in walk.reduced for name in names), *(grid.key for grid in grids)]

    def _solve(self, unit: Unit, method: Method) -> Arrays:
        """Rounds a part; the result is that of the method, or the nearest rounding where this is no worse."""
        known = self.quantized
        before, nearest = unit.error(), known.tables()
        method.solve(unit)
        after = unit.error()
        if not after <= before:
            after = before
            known.restore(nearest)
        return {**_stored(unit), "errors": np.array([before, after])}

    def result(self) -> Rounded:
        """Returns the network as it is now."""
        known, plan = self.quantized, self.walk.plan
        weights = {
            name: known.grids[name].as_grid(grid.bits) if name in known.grids else grid
            for name, grid in plan.weights.items()
        }
        activations = {
            t: known.activations[t].as_grid(grid.bits) if t in known.activations else grid
            for t, grid in plan.activations.items()
        }
        for before, after in self.walk.source.network.follows.items():
            if before in activations and after in activations:
                activations[before] = activations[after]
        return Rounded(
            {name: _array(value) for name, value in known.weights.items()},
            Plan(activations, weights, plan.float_nodes),
            {name: _array(value) for name, value in known.biases.items()},
            self.errors,
        )


def _joined(batches: Iterable[Values], names: Collection[str]) -> Values:
    """Returns some values of all batches; of a batch no others are kept."""
    import torch

    kept = [{name: made[name] for name in names} for made in batches]
    return {name: torch.cat([made[name] for made in kept]) for name in names}


def _array(value: "torch.Tensor") -> NDArray[np.float32]:
    return np.asarray(value.detach().cpu().numpy(), np.float32)


def _tables(unit: Unit) -> Mapping[str, list[str]]:
    """Returns the names that a part may change, in a fixed order."""
    nodes = unit.segment.nodes
    read = dict.fromkeys(t for node in nodes for t in node.inputs if t in unit.quantized.activations)
    return {
        "weight": [x.name for x in unit.layers],
        "bias": [x.bias for x in unit.segment.layers if x.bias],
        "activation": list(read),
    }


def _stored(unit: Unit) -> Arrays:
    known, names = unit.quantized, _tables(unit)
    found: Arrays = {}
    for i, name in enumerate(names["weight"]):
        found[f"w{i}"], found[f"s{i}"] = _array(known.weights[name]), _array(known.grids[name].scale)
    for i, name in enumerate(names["bias"]):
        if name in known.biases:
            found[f"b{i}"] = _array(known.biases[name])
    for i, name in enumerate(names["activation"]):
        found[f"a{i}"] = _array(known.activations[name].scale)
    return found


def _restore(unit: Unit, solved: Arrays) -> None:
    import torch

    known, names = unit.quantized, _tables(unit)

    def like(value: "torch.Tensor", key: str) -> "torch.Tensor":
        return torch.from_numpy(np.array(solved[key])).to(value.device).reshape(value.shape)

    for i, name in enumerate(names["weight"]):
        known.weights[name] = like(known.weights[name], f"w{i}")
        known.grids[name] = known.grids[name].with_scale(like(known.grids[name].scale, f"s{i}"))
    for i, name in enumerate(names["bias"]):
        if f"b{i}" in solved:
            known.biases[name] = like(unit.floats[name], f"b{i}")
    for i, name in enumerate(names["activation"]):
        grid = known.activations[name]
        known.activations[name] = grid.with_scale(like(grid.scale, f"a{i}"))

"""What an allocator is told of a compression study: its layers, their losses, and the costs of allocations."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from math import prod
from typing import Any, cast

from search.allocators.base import AllocationContext, LayerKnob, Measure
from search.allocators.costs import Costs
from search.allocators.problem import Allocation, Table
from search.record.results import Constraint
from search.record.suggest import Param, param_of
from search.trials.compression_work import Call
from search.trials.trial import CompressionRunner
from spaces.candidate import Candidate, Value
from spaces.errors import ParedownError
from spaces.knobs import Knob
from spaces.models.layers import layers, recurrent_layers
from spaces.quantization.quantize import QuantizeStage
from spaces.space import Space

MOST_VALUES = 16  # of another knob, of which it is asked what they save

ReadLimits = Callable[[Mapping[str, Any], str], Sequence[Constraint]]
"""Reads limits, given their section's path."""


def allocation_context(
    runner: CompressionRunner,
    call: Call,
    constraints: Sequence[Constraint],
    read: ReadLimits,
    defaults: Mapping[str, Value],
) -> AllocationContext:
    """Returns the context; nothing is measured yet.

    Args:
        runner: Computes costs of candidates, in this process.
        call: Calls a method of `CompressionWork`, which measures losses where trials run.
        constraints: The limits of the objective.
        read: Reads further limits.
        defaults: Values of the knobs that are not allocated.
    """
    return AllocationContext(
        _layer_knobs(runner.space),
        _measure(runner, call),
        _n_weights(runner),
        CompressionLimits(runner, constraints, read, defaults),
    )


class CompressionLimits:
    """Costs and limits of a compression study; see `search.allocators.base.Limits`.

    Args:
        runner: Computes costs of candidates.
        constraints: The limits of the objective.
        read: Reads further limits.
        defaults: Values of all knobs.
    """

    def __init__(
        self,
        runner: CompressionRunner,
        constraints: Sequence[Constraint],
        read: ReadLimits,
        defaults: Mapping[str, Value],
    ) -> None:
        self.constraints, self.read = constraints, read
        self._runner, self._defaults = runner, defaults

    def savings(self, allocation: Allocation, column: str) -> float:
        """Returns what the other knobs can save of a cost, one knob at a time, added up."""
        values = {**self._defaults, **allocation}
        cost = self._costs(Candidate(values)).get(column, 0.0)
        others = [knob for knob in self._runner.space.knobs if knob.path not in allocation]
        with self._runner.lock.shared():
            return sum(cost - self._least(values, knob, column, cost) for knob in others)

    def _least(self, values: Mapping[str, Value], knob: Knob, column: str, cost: float) -> float:
        """Returns the least cost with another value of a knob; at most `cost`."""
        changed = [Candidate({**values, knob.path: value}) for value in _some_values(knob)]
        return min([cost, *(self._costs(candidate).get(column, cost) for candidate in changed)])

    def known(self, allocations: Sequence[Allocation]) -> Sequence[Costs]:
        """Returns the costs of allocations by column; none of one that cannot be built."""
        with self._runner.lock.shared():
            return [self._costs(Candidate({**self._defaults, **widths})) for widths in allocations]

    def _costs(self, candidate: Candidate) -> Costs:
        try:
            return self._runner.structure_columns(candidate)
        except ParedownError:
            return {}


def _some_values(knob: Knob) -> list[Value]:
    return list(islice(knob.domain, MOST_VALUES)) if knob.domain.size is not None else []


def _layer_knobs(space: Space) -> dict[str, LayerKnob]:
    """Returns the knobs of layers whose values are whole numbers, with their parameters."""
    found = {}
    for knob in space.knobs:
        if knob.layers is not None and knob.domain.size is not None:
            values = {param_of(knob.domain, value): value for value in knob.domain}
            if all(type(value) is int for value in values.values()):
                found[knob.path] = LayerKnob(knob.layers, cast(dict[Param, int], values))
    return found


def _n_weights(runner: CompressionRunner) -> dict[str, int]:
    """Returns the number of weights of each layer of the float model."""
    proto = runner.dense.proto()
    return {layer.name: prod(layer.weight_shape) for layer in (*layers(proto), *recurrent_layers(proto))}


def _rounding(space: Space, grid: Mapping[str, str]) -> str:
    """Returns the rounding while losses are measured: with `auto`, feedback where a candidate rounds otherwise than to nearest."""
    asked = grid.get("rounding", "auto")
    if asked != "auto":
        return asked
    methods = space.domains(QuantizeStage.name).get("rounding", ("nearest",))
    return "gptq" if set(methods) - {"nearest"} else "nearest"


def _measure(runner: CompressionRunner, call: Call) -> Measure | None:
    """Returns what measures the losses of layers where trials run; None if other stages change the float network."""
    if runner.start.kind != "onnx" or runner.pipeline.stages[0].name != QuantizeStage.name:
        return None

    def measure(
        sensitivity: str, widths: Mapping[str, Sequence[int]], n_examples: int, grid: Mapping[str, str]
    ) -> Table:
        losses = call(
            "layer_losses",
            sensitivity,
            widths,
            n_examples,
            {**grid, "rounding": _rounding(runner.space, grid)},
        )
        return {  # JSON has texts as keys
            layer: {int(w): loss for w, loss in row.items()} for layer, row in losses.items()
        }

    return measure

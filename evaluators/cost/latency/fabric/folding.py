"""Folding of a whole network on an FPGA: the parallelism of each layer's engine in a balanced pipeline.

All engines work on different frames at once, so the slowest determines the frame rate. For a target in cycles
per frame every layer gets the cheapest engine that reaches it; bisection finds the fastest target whose
engines and weights fit. Look-up tables (LUTs) are the scarcest resource: if they run out, weights move to
block RAMs and multipliers to DSP slices, in the order of LUTs saved per block RAM or slice.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from evaluators.devices.fpga import (
    FpgaDevice,
    FpgaLayer,
    Multiplier,
    engine_dsps,
    engine_luts,
    weight_memory_brams,
    weight_memory_luts,
)
from spaces.errors import EvaluationError


@dataclass(frozen=True)
class Folding:
    """One layer's engine.

    Attributes:
        layer: The layer's name.
        pe: Rows (output channels) per cycle.
        simd: Columns (inputs) per cycle.
        cycles: Cycles per frame.
        multiplier: Whether LUTs or DSP slices compute the products.
        weights_in_bram: Whether the weights are stored in block RAMs instead of look-up tables.
        luts: Look-up tables, those of the weights included.
        dsps: DSP slices.
        brams: 18-kilobit block RAMs.
    """

    layer: str
    pe: int
    simd: int
    cycles: int
    multiplier: Multiplier
    weights_in_bram: bool
    luts: int
    dsps: int
    brams: int


@dataclass(frozen=True)
class FpgaEstimate:
    """Speed and resources of a network on an FPGA; the resources exclude line buffers, FIFOs and the shell.

    Attributes:
        foldings: The engine of each layer, in order.
        luts: Look-up tables.
        dsps: DSP slices.
        brams: 18-kilobit block RAMs for weights.
        fps: Frames per second of the full pipeline.
        latency_ms: Latency of one frame if no layer starts before its predecessor ends, which is an upper
            bound.
        interval_ms: Time between frames, which is a lower bound of the latency.
    """

    foldings: tuple[Folding, ...]
    luts: int
    dsps: int
    brams: int
    fps: float
    latency_ms: float
    interval_ms: float


class _Option(NamedTuple):
    """The cheapest engines of a layer with `products` products per cycle, with LUT or DSP multipliers.

    `memory_luts` and `memory_brams` are the two alternatives for storing the weights.
    """

    products: int
    luts: int
    lut_folding: tuple[int, int]
    luts_with_dsps: int
    dsps: int
    dsp_folding: tuple[int, int]
    memory_luts: int
    memory_brams: int

    @property
    def all_luts(self) -> int:
        """Look-up tables with multipliers and weights in look-up tables."""
        return self.luts + self.memory_luts


class _Move(NamedTuple):
    """A move of a layer's weights or multipliers from look-up tables to `units` block RAMs or DSP slices."""

    saved_luts: int
    units: int
    layer: int


def fold_network(layers: Sequence[FpgaLayer], device: FpgaDevice) -> FpgaEstimate:
    """Returns the fastest balanced pipeline that fits the usable part of the device.

    Raises:
        EvaluationError: No layers, or the network does not fit even at one product per cycle and layer; the
            message lists the resources in use.
    """
    if not layers:
        raise EvaluationError("layers: an FPGA pipeline needs at least one layer")
    options = [_options(layer) for layer in layers]
    targets = sorted(
        {layer.macs // o.products for layer, os in zip(layers, options, strict=True) for o in os}
    )
    floor = max(layer.output_pixels for layer in layers)
    low, high = bisect_left(targets, floor), len(targets) - 1
    best = _place(layers, options, targets[high], device)
    while low < high:
        middle = (low + high) // 2
        placed = _place(layers, options, targets[middle], device)
        if _luts(placed) <= device.usable[0]:
            best, high = placed, middle
        else:
            low = middle + 1
    if _luts(best) > device.usable[0]:
        raise EvaluationError(_shortage(best, device))
    return _estimate(best, device)


@lru_cache(maxsize=4096)
def _options(layer: FpgaLayer) -> tuple[_Option, ...]:
    """Returns the degrees of parallelism that divide the layer evenly, fewest products first.

    Options that take at least as many look-up tables as a faster one are omitted, so the first that reaches a
    target is the cheapest.
    """
    splits: dict[int, list[tuple[int, int]]] = {}
    for pe in _divisors(layer.mh):
        for simd in _divisors(layer.mw):
            splits.setdefault(pe * simd, []).append((pe, simd))
    kept: list[_Option] = []
    for products in sorted(splits, reverse=True):
        option = _option(layer, products, splits[products])
        if not kept or option.all_luts < kept[-1].all_luts:
            kept.append(option)
    return tuple(reversed(kept))


def _option(layer: FpgaLayer, products: int, splits: list[tuple[int, int]]) -> _Option:
    luts, lut_folding = min((engine_luts(layer, *split), split) for split in splits)
    dsps, luts_with_dsps, dsp_folding = min(
        (engine_dsps(layer, *split), engine_luts(layer, *split, "dsp"), split) for split in splits
    )
    memory_luts, brams = weight_memory_luts(layer, products), weight_memory_brams(layer, products)
    return _Option(products, luts, lut_folding, luts_with_dsps, dsps, dsp_folding, memory_luts, brams)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _place(
    layers: Sequence[FpgaLayer], options: list[tuple[_Option, ...]], target: int, device: FpgaDevice
) -> list[Folding]:
    """Returns the cheapest engines that reach `target` cycles per frame.

    Weights, then multipliers move off the look-up tables until these suffice, as far as block RAMs and DSP
    slices allow.
    """
    chosen = [_cheapest(layer, opts, target) for layer, opts in zip(layers, options, strict=True)]
    dsp_moves = [_Move(o.luts - o.luts_with_dsps, o.dsps, i) for i, o in enumerate(chosen)]
    bram_moves = [_Move(o.memory_luts, o.memory_brams, i) for i, o in enumerate(chosen)]
    luts, dsps, brams = device.usable
    excess = sum(o.all_luts for o in chosen) - luts
    in_bram, excess = _moved(bram_moves, brams, excess)
    in_dsp, excess = _moved(dsp_moves, dsps, excess)
    return [
        _folding(layer, o, i in in_dsp, i in in_bram)
        for i, (layer, o) in enumerate(zip(layers, chosen, strict=True))
    ]


def _cheapest(layer: FpgaLayer, options: tuple[_Option, ...], target: int) -> _Option:
    """Returns the option with the fewest look-up tables that reaches the target."""
    return options[bisect_left(options, layer.macs / target, key=lambda option: option.products)]


def _moved(moves: list[_Move], budget: float, excess: float) -> tuple[set[int], float]:
    """Selects moves, most look-up tables per unit first, until the excess is gone or the budget spent.

    Args:
        moves: The candidate moves.
        budget: Available block RAMs or DSP slices.
        excess: Look-up tables in excess of the usable ones.

    Returns:
        Positions of the layers to move, and the remaining excess (not above 0 if they fit).
    """
    layers: set[int] = set()
    for move in sorted(moves, key=lambda m: (-m.saved_luts / m.units, m.layer)):
        if excess > 0 and move.saved_luts > 0 and move.units <= budget:
            layers.add(move.layer)
            budget -= move.units
            excess -= move.saved_luts
    return layers, excess


def _folding(layer: FpgaLayer, option: _Option, in_dsp: bool, in_bram: bool) -> Folding:
    pe, simd = option.dsp_folding if in_dsp else option.lut_folding
    return Folding(
        layer=layer.name,
        pe=pe,
        simd=simd,
        cycles=layer.macs // option.products,
        multiplier="dsp" if in_dsp else "lut",
        weights_in_bram=in_bram,
        luts=(option.luts_with_dsps if in_dsp else option.luts) + (0 if in_bram else option.memory_luts),
        dsps=option.dsps if in_dsp else 0,
        brams=option.memory_brams if in_bram else 0,
    )


def _luts(foldings: list[Folding]) -> int:
    return sum(folding.luts for folding in foldings)


def _shortage(foldings: list[Folding], device: FpgaDevice) -> str:
    luts, dsps, brams = device.usable
    used_dsps, used_brams = sum(f.dsps for f in foldings), sum(f.brams for f in foldings)
    return (
        f"the network does not fit the FPGA: even one product a cycle and layer needs {_luts(foldings)} look-up "
        f"tables of {luts:.0f} usable ones, beside {used_dsps} of {dsps:.0f} DSP slices and {used_brams} of "
        f"{brams:.0f} block RAMs; use fewer or narrower weights, or a larger device"
    )


def _estimate(foldings: list[Folding], device: FpgaDevice) -> FpgaEstimate:
    cycles = [folding.cycles for folding in foldings]
    return FpgaEstimate(
        foldings=tuple(foldings),
        luts=_luts(foldings),
        dsps=sum(folding.dsps for folding in foldings),
        brams=sum(folding.brams for folding in foldings),
        fps=device.clock_hz / max(cycles),
        latency_ms=1e3 * sum(cycles) / device.clock_hz,
        interval_ms=1e3 * max(cycles) / device.clock_hz,
    )

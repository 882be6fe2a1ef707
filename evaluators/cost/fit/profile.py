"""Device profiles from networks that somebody measured.

    python -m evaluators.cost.fit measurements.csv --name my_board --runtime "X-CUBE-AI 9.0" --out my_board.yaml

Each row of the CSV is a measured network; `evaluators.cost.fit.measurements` lists its columns. With few networks the ratios
between the costs of kernel classes are borrowed from boards that were measured before; with many, least squares needs
nothing borrowed. Cross-validation, networks held out, chooses, and says how far off the profile is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.fit.costs import Array, MeasuredNetwork, ReferenceBoard
from evaluators.cost.fit.methods import FittedCosts, Method, methods_for
from evaluators.cost.fit.reference_boards import REFERENCE_BOARDS
from evaluators.cost.fit.shrinkage import Borrowing
from evaluators.cost.latency.residual.network import NetworkResidual, network_features
from evaluators.devices.device import Device, FigureSource
from spaces.errors import ConfigError

_MOST_FOLDS = 20
_LEAST_FOR_RESIDUAL = 30  # networks; fewer cannot tell a learned correction from luck
_STAYS_WITHIN = 0.8  # `Device.error` is what 8 of 10 comparisons stay within


@dataclass(frozen=True)
class FittedProfile:
    """A device profile and how well it predicts networks that it was not fitted to.

    Attributes:
        device: The profile; its `error` is what 8 of 10 held-out measurements stay within.
        method: What cross-validation chose.
        errors_by_method: Method to mean relative error of held-out networks.
        latency_errors: Relative error of each row's latency when its network was held out, `(n,)`; 0.1 is too slow.
        energy_errors: The same for energy, held-out power times held-out latency; nan where it was not measured.
        residual: Learned correction where cross-validation says that it helps; `Device.residual` is to name its file.
    """

    device: Device
    method: str
    errors_by_method: Mapping[str, float]
    latency_errors: Array
    energy_errors: Array
    residual: NetworkResidual | None = None


def fit_profile(
    rows: Sequence[MeasuredNetwork],
    name: str,
    runtime: str,
    description: str = "",
    boards: Sequence[ReferenceBoard] = REFERENCE_BOARDS,
    borrowing: Borrowing | None = None,
    seed: int = 0,
) -> FittedProfile:
    """Fits a profile to networks that were measured on one (hardware, runtime) pair.

    Args:
        rows: The measurements, of at least two networks.
        name: The device's name.
        runtime: What runs the networks, its version last; reference boards with the same one count more.
        description: The hardware, for people.
        boards: Measured boards whose ratios may be borrowed. The errors come out too small if this very board is one.
        borrowing: How much; None takes what predicted MLPerf Tiny's held-out networks best.
        seed: Of the learned correction.

    Raises:
        ConfigError: There are fewer than two networks, or one does not multiply.
    """
    _check(rows, name)
    blank = Device(name=name, description=description, runtime=runtime, bound="sum")
    methods = methods_for(rows, blank, boards, borrowing or Borrowing())
    held = {key: _held_out(rows, method) for key, method in methods.items()}
    errors = {key: float(np.mean(np.abs(each))) for key, each in held.items()}
    chosen = min(errors, key=lambda key: errors[key])
    model, latency = methods[chosen](rows), held[chosen]
    residual, corrected = _residual(rows, methods[chosen], model, latency, seed)
    if corrected is not None:
        errors[f"{chosen}, corrected"] = float(np.mean(np.abs(corrected)))
    if residual is not None and corrected is not None:
        latency = corrected
    energy = _energy_errors(rows, latency)
    device = _with_errors(_with_power(model.device, rows), rows, chosen, latency, energy)
    return FittedProfile(device, chosen, errors, latency, energy, residual)


def _check(rows: Sequence[MeasuredNetwork], name: str) -> None:
    names = sorted({row.name for row in rows})
    if len(names) < 2:
        raise ConfigError(
            f"{name}: measurements of one network ({', '.join(names) or 'none'}) cannot tell kernels apart, nor how "
            "wrong a fit is; measure at least 2 different networks, better 4"
        )
    idle = next((row.name for row in rows if not row.graph.macs), None)
    if idle is not None:
        raise ConfigError(f"{name}: network {idle!r} has no multiply-accumulates to fit a throughput to")


def _folds(rows: Sequence[MeasuredNetwork]) -> list[NDArray[np.bool_]]:
    """Networks to hold out together: one at a time, or a twentieth where there are many."""
    names = list(dict.fromkeys(row.name for row in rows))
    n = min(len(names), _MOST_FOLDS)
    place = {name: i % n for i, name in enumerate(names)}
    return [np.array([place[row.name] == fold for row in rows]) for fold in range(n)]


def _some(rows: Sequence[MeasuredNetwork], chosen: NDArray[np.bool_]) -> list[MeasuredNetwork]:
    return [row for row, take in zip(rows, chosen, strict=True) if take]


def _held_out(rows: Sequence[MeasuredNetwork], method: Method) -> Array:
    """Relative error of each row by a fit to the networks of the other folds, `(n,)`."""
    latency_ms = np.array([row.latency_ms for row in rows])
    errors = np.empty(len(rows))
    for fold in _folds(rows):
        errors[fold] = method(_some(rows, ~fold)).times_ms(_some(rows, fold)) / latency_ms[fold] - 1
    return errors


def _residual(
    rows: Sequence[MeasuredNetwork], method: Method, model: FittedCosts, plain: Array, seed: int
) -> tuple[NetworkResidual | None, Array | None]:
    """The correction if it is surely better, and the errors with it if it was tried."""
    if len({row.name for row in rows}) < _LEAST_FOR_RESIDUAL:
        return None, None
    errors = np.empty(len(rows))
    for fold in _folds(rows):
        part = method(_some(rows, ~fold))
        learned = _trained(_some(rows, ~fold), part, seed)
        errors[fold] = [_corrected_ms(row, part, learned) / row.latency_ms - 1 for row in _some(rows, fold)]
    gain = np.abs(plain) - np.abs(errors)
    surely = bool(gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain)))
    return (_trained(rows, model, seed) if surely else None), errors


def _trained(rows: Sequence[MeasuredNetwork], model: FittedCosts, seed: int) -> NetworkResidual:
    found = [model.modelled(row) for row in rows]
    features = [
        network_features(model.graph(row).kernels, each.kernel_ms)
        for row, each in zip(rows, found, strict=True)
    ]
    ratios = [
        max(row.latency_ms - each.run_overhead_ms, 0.01 * row.latency_ms) / each.kernel_ms.sum()
        for row, each in zip(rows, found, strict=True)
    ]
    return NetworkResidual.trained(np.array(features), np.log(ratios), seed)


def _corrected_ms(row: MeasuredNetwork, model: FittedCosts, residual: NetworkResidual) -> float:
    found = model.modelled(row)
    times = residual.corrected_ms(model.graph(row).kernels, found.kernel_ms)
    return float(times.sum()) + found.run_overhead_ms


def _powers_mw(rows: Sequence[MeasuredNetwork]) -> Array:
    given = [row.active_power_mw for row in rows]
    return np.array([np.nan if power is None else power for power in given])


def _with_power(device: Device, rows: Sequence[MeasuredNetwork]) -> Device:
    """The median, which one network that keeps the device less busy does not move."""
    powers = _powers_mw(rows)
    known = powers[~np.isnan(powers)]
    return replace(device, active_power_mw=float(np.median(known))) if len(known) else device


def _energy_errors(rows: Sequence[MeasuredNetwork], latency_errors: Array) -> Array:
    powers = _powers_mw(rows)
    errors = np.full(len(rows), np.nan)
    for fold in _folds(rows):
        known = powers[~fold & ~np.isnan(powers)]
        if len(known):
            errors[fold] = np.median(known) / powers[fold] * (1 + latency_errors[fold]) - 1
    return errors


def _with_errors(
    device: Device, rows: Sequence[MeasuredNetwork], method: str, latency: Array, energy: Array
) -> Device:
    n = len({row.name for row in rows})
    error = {"latency_ms": float(np.quantile(np.abs(latency), _STAYS_WITHIN))}
    if not np.isnan(energy).all():
        error["energy_uj"] = float(np.nanquantile(np.abs(energy), _STAYS_WITHIN))
    source = FigureSource("modelled", f"fitted to measurements of {n} networks ({method})")
    figures = ["macs_per_s", "kernel_overhead_us", "run_overhead_us", "memory_bandwidth_bytes_per_s"]
    figures += ["flash_bandwidth_bytes_per_s"]
    sources = {figure: source for figure in figures if getattr(device, figure)}
    if device.active_power_mw is not None:
        sources["active_power_mw"] = FigureSource(
            "measured", f"median over {n} networks, from the measurements given"
        )
    return replace(device, error=error, sources=sources)

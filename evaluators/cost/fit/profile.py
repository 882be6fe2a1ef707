"""Fits device profiles to measured networks.

    python -m evaluators.cost.fit measurements.csv --name my_board --runtime "X-CUBE-AI 9.0" --out my_board.yaml

Each row of the CSV is a measured network; `evaluators.cost.fit.measurements` lists its columns. With few
networks the ratios between the costs of kernel classes get a prior from boards that were measured before
("borrowed"); with many, plain least squares needs no prior. Cross-validation over networks selects the method
and estimates the profile's error.
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
_LEAST_FOR_RESIDUAL = 30  # networks; with fewer a learned residual cannot be told from noise
_STAYS_WITHIN = 0.8  # quantile of the absolute relative errors that `Device.error` states


@dataclass(frozen=True)
class FittedProfile:
    """A device profile and how well it predicts networks that it was not fitted to.

    Attributes:
        device: The profile; its `error` is the 0.8 quantile of the absolute relative errors of held-out
            networks.
        method: The method that cross-validation selected.
        errors_by_method: Mean absolute relative error of held-out networks by method.
        latency_errors: Relative error (predicted / measured - 1) of each row's latency when its network was
            held out, `(n,)`.
        energy_errors: The same for energy, predicted as held-out power times held-out latency; nan if not
            measured.
        residual: Learned correction if cross-validation shows that it helps; write it and name it in
            `Device.residual`.
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
        runtime: The runtime, its version last; reference boards with the same runtime get more prior weight.
        description: Description of the hardware for readers.
        boards: Reference boards that serve as prior means. The errors are underestimated if one is this very
            board.
        borrowing: Hyperparameters of the prior; None takes those that predicted MLPerf Tiny's held-out
            networks best.
        seed: Seed of the learned residual.

    Raises:
        ConfigError: There are fewer than two networks, or one has no multiply-accumulates.
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
            f"{name}: measurements of one network ({', '.join(names) or 'none'}) determine neither the costs of its "
            "kernels nor the error of a fit; measure at least 2 different networks, better 4"
        )
    idle = next((row.name for row in rows if not row.graph.macs), None)
    if idle is not None:
        raise ConfigError(f"{name}: network {idle!r} has no multiply-accumulates to fit a throughput to")


def _folds(rows: Sequence[MeasuredNetwork]) -> list[NDArray[np.bool_]]:
    """Returns masks of the rows to hold out, `(n,)`: one network each, at most 20 folds."""
    names = list(dict.fromkeys(row.name for row in rows))
    n = min(len(names), _MOST_FOLDS)
    place = {name: i % n for i, name in enumerate(names)}
    return [np.array([place[row.name] == fold for row in rows]) for fold in range(n)]


def _some(rows: Sequence[MeasuredNetwork], chosen: NDArray[np.bool_]) -> list[MeasuredNetwork]:
    return [row for row, take in zip(rows, chosen, strict=True) if take]


def _held_out(rows: Sequence[MeasuredNetwork], method: Method) -> Array:
    """Returns the relative error of each row under the fit to the other folds, `(n,)`."""
    latency_ms = np.array([row.latency_ms for row in rows])
    errors = np.empty(len(rows))
    for fold in _folds(rows):
        errors[fold] = method(_some(rows, ~fold)).times_ms(_some(rows, fold)) / latency_ms[fold] - 1
    return errors


def _residual(
    rows: Sequence[MeasuredNetwork], method: Method, model: FittedCosts, plain: Array, seed: int
) -> tuple[NetworkResidual | None, Array | None]:
    """Returns the residual if it is significantly better, and the errors with it, `(n,)`, if tried."""
    if len({row.name for row in rows}) < _LEAST_FOR_RESIDUAL:
        return None, None
    errors = np.empty(len(rows))
    for fold in _folds(rows):
        part = method(_some(rows, ~fold))
        learned = _trained(_some(rows, ~fold), part, seed)
        errors[fold] = [_corrected_ms(row, part, learned) / row.latency_ms - 1 for row in _some(rows, fold)]
    reduction = np.abs(plain) - np.abs(errors)
    significant = bool(reduction.mean() > 2 * reduction.std(ddof=1) / np.sqrt(len(reduction)))
    return (_trained(rows, model, seed) if significant else None), errors


def _trained(rows: Sequence[MeasuredNetwork], model: FittedCosts, seed: int) -> NetworkResidual:
    models = [model.modelled(row) for row in rows]
    features = [
        network_features(model.graph(row).kernels, each.kernel_ms)
        for row, each in zip(rows, models, strict=True)
    ]
    ratios = [
        max(row.latency_ms - each.run_overhead_ms, 0.01 * row.latency_ms) / each.kernel_ms.sum()
        for row, each in zip(rows, models, strict=True)
    ]
    return NetworkResidual.trained(np.array(features), np.log(ratios), seed)


def _corrected_ms(row: MeasuredNetwork, model: FittedCosts, residual: NetworkResidual) -> float:
    modelled = model.modelled(row)
    times = residual.corrected_ms(model.graph(row).kernels, modelled.kernel_ms)
    return float(times.sum()) + modelled.run_overhead_ms


def _powers_mw(rows: Sequence[MeasuredNetwork]) -> Array:
    given = [row.active_power_mw for row in rows]
    return np.array([np.nan if power is None else power for power in given])


def _with_power(device: Device, rows: Sequence[MeasuredNetwork]) -> Device:
    """Sets the active power to the median, which is robust against single networks that idle more."""
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

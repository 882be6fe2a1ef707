"""Fits the correction of a profile to timed networks: a formula for each operator, and boosted trees."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.cost.latency.residual.kernel import KernelResidual, Operator
from evaluators.cost.latency.residual.kernel_features import formula_terms
from evaluators.cost.latency.roofline import roofline
from evaluators.devices.device import Device

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float64]

_LEAST_KERNELS = 15  # of an operator, for it to have a formula
_ROUNDS = 8
_TREES: Mapping[str, Any] = {
    "objective": "reg:pseudohubererror",  # robust: the times of some kernels are outliers
    "huber_slope": 0.1,
    "eta": 0.06,
    "max_depth": 8,
    "min_child_weight": 3,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "reg_lambda": 1.0,
    "tree_method": "hist",
    "base_score": 0.0,
}


@dataclass(frozen=True)
class Timed:
    """One network with a time for each kernel, `(n_kernels,)` us, and for the whole run."""

    graph: OpGraph
    kernel_us: Floats
    total_us: float


def fit_trees(
    inputs: NDArray[np.float32], logs: Floats, weights: Floats, seed: int, rounds: int
) -> "xgboost.Booster":
    """Fits boosted trees; `inputs` is `(n, n_inputs)`, the targets `logs` and the `weights` are `(n,)`."""
    import xgboost

    data = xgboost.DMatrix(inputs, label=logs, weight=weights)
    return xgboost.train({**_TREES, "seed": seed, "nthread": 2}, data, rounds)


def fit_formulas(kernels: Sequence[Kernel], terms: Floats, times_ms: Floats) -> dict[Operator, Floats]:
    """Fits each operator's formula by non-negative least squares of relative errors, outliers counting less."""
    rows_of: dict[Operator, list[int]] = defaultdict(list)
    for i, kernel in enumerate(kernels):
        rows_of[kernel.op, kernel.kind].append(i)
    return {
        operator: robust_nnls(terms[rows], times_ms[rows], 0.15)
        for operator, rows in rows_of.items()
        if len(rows) >= _LEAST_KERNELS
    }


def robust_nnls(terms: Floats, targets: Floats, usual_error: float) -> Floats:
    """Fits non-negative coefficients by least squares of relative errors; errors over `usual_error` count less."""
    from scipy.optimize import nnls

    weights = 1 / targets
    for _ in range(_ROUNDS):
        weighted = terms * weights[:, None]
        scale = np.maximum(weighted.max(axis=0), 1e-30)
        coefficients = nnls(weighted / scale, targets * weights)[0] / scale
        errors = np.abs(terms @ coefficients / targets - 1)
        weights = 1 / targets / np.sqrt(np.maximum(1, errors / usual_error))
    return np.asarray(coefficients, np.float64)


def fit_residual(timed: Sequence[Timed], device: Device, seed: int, rounds: int = 500) -> KernelResidual:
    """Fits the correction of a device's roofline latencies to timed networks."""
    kernels = [k for network in timed for k in network.graph.kernels]
    times_ms = np.concatenate([network.kernel_us for network in timed]) / 1e3
    terms = np.concatenate([formula_terms(network.graph.kernels) for network in timed])
    formulas = fit_formulas(kernels, terms, times_ms)
    formulas_only = KernelResidual(formulas, sorted(formulas))
    inputs, by_formula = [], []
    for network in timed:
        base = formulas_only.by_formula_ms(network.graph.kernels, roofline(network.graph, device).kernel_ms)
        by_formula.append(base)
        inputs.append(formulas_only.inputs(network.graph.kernels, base))
    share = np.concatenate([network.kernel_us / network.kernel_us.sum() for network in timed])
    logs = np.log(times_ms / np.concatenate(by_formula))
    weights = np.sqrt(share)
    trees = fit_trees(np.concatenate(inputs), logs, weights / weights.mean(), seed, rounds)
    return KernelResidual(formulas, sorted(formulas), trees)

"""Estimates the time of each kernel in a run without the profiler from onnxruntime's profile of a network.

The profiler's overhead is part of every duration that it reports: about 2 us per kernel and some more for each tensor
that it describes. The overhead is fitted to the networks' times without the profiler: total = run overhead + sum over
kernels of (duration - a - b * inputs - c * constants). All times are scaled to the machine's typical load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import OpGraph
from evaluators.cost.latency.residual.kernel_features import formula_terms
from evaluators.profile.learn import fit_formulas
from evaluators.profile.machine_load import Operator, powers, sensitivities
from evaluators.profile.measure import Sample

Floats = NDArray[np.float64]

_LEAST_US = 0.1
_ROUNDS = 10
_USUAL_ERROR = 0.03  # relative; samples that deviate by more count less
_LARGEST_FACTOR = 1.4  # by which kernel times are scaled so that their sum fits the network's total


@dataclass(frozen=True)
class Labels:
    """Times of kernels and of networks under the machine's typical load.

    Attributes:
        kernel_us: For each sample, the time of each kernel, `(n_kernels,)`; the sum is the time of a run minus the overhead.
        total_us: For each sample, the time of a run, `(n_samples,)`.
        run_overhead_us: Time of a run besides its kernels.
        additive_error: Median relative error of the fitted sums, before kernel times are scaled to the total.
    """

    kernel_us: list[Floats]
    total_us: Floats
    run_overhead_us: float
    additive_error: float


def labels_of(samples: Sequence[Sample], typical_us: float) -> Labels:
    """Removes the profiler's overhead and the machine load from every duration.

    Args:
        samples: The timed networks.
        typical_us: The anchor's time under the typical machine load, to which times are scaled.
    """
    proportional = _labels(samples, typical_us, {})
    kernels = [kernel for sample in samples for kernel in sample.graph.kernels]
    times = np.concatenate(proportional.kernel_us)
    share = np.concatenate([us / us.sum() for us in proportional.kernel_us])
    machine_loads = (
        np.concatenate([np.full(len(s.graph.kernels), s.kernel_load_us) for s in samples]) / typical_us
    )
    terms = np.concatenate([formula_terms(sample.graph.kernels) for sample in samples])
    formulas = fit_formulas(kernels, terms, times)
    has_formula = np.array([(k.op, k.kind) in formulas for k in kernels])
    formula_us = np.array(
        [
            t @ formulas[k.op, k.kind] if n else 1.0
            for k, t, n in zip(kernels, terms, has_formula, strict=True)
        ]
    )
    exponents = sensitivities(
        [k for k, n in zip(kernels, has_formula, strict=True) if n],
        np.log(times / np.maximum(formula_us, _LEAST_US))[has_formula],
        np.log(machine_loads)[has_formula],
        np.sqrt(share)[has_formula],
    )
    return _labels(samples, typical_us, exponents)


def _labels(samples: Sequence[Sample], typical_us: float, exponents: Mapping[Operator, float]) -> Labels:
    machine_loads = (
        np.array([(s.total_load_us, s.kernel_load_us) for s in samples]) / typical_us
    )  # (n_samples, 2)
    # A network's exponent of the load is the mean of its kernels' exponents, weighted by their times.
    power = np.array([np.average(powers(s.graph.kernels, exponents), weights=s.kernel_us) for s in samples])
    totals = np.array([s.total_us for s in samples]) / machine_loads[:, 0] ** power
    sums = np.array([s.kernel_us.sum() for s in samples]) / machine_loads[:, 1] ** power
    counts = np.stack([_counts(s.graph).sum(axis=0) for s in samples])
    terms = np.concatenate([-counts, np.ones((len(samples), 1))], axis=1)
    solution, errors = _robust_fit(terms, totals - sums, totals)
    overhead = max(float(solution[-1]), 0.0)
    kernel_us = []
    for sample, total, machine_load in zip(samples, totals, machine_loads[:, 1], strict=True):
        unprofiled = sample.kernel_us - machine_load * (_counts(sample.graph) @ solution[:-1])
        times = np.maximum(unprofiled, _LEAST_US) / machine_load ** powers(sample.graph.kernels, exponents)
        # The rest, from rounding to whole microseconds and noise, is distributed in proportion, up to a limit.
        factor = (total - overhead) / times.sum()
        kernel_us.append(times * float(np.clip(factor, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)))
    return Labels(kernel_us, totals, overhead, float(np.median(errors)))


def _counts(graph: OpGraph) -> Floats:
    return np.array([(1, len(k.inputs), len(k.constants)) for k in graph.kernels], np.float64)


def _robust_fit(terms: Floats, targets: Floats, totals: Floats) -> tuple[Floats, Floats]:
    """Fits by least squares of errors relative to `totals`, with less weight on outliers; returns solution and errors."""
    weights = 1 / totals
    for _ in range(_ROUNDS):
        solution = np.linalg.lstsq(terms * weights[:, None], targets * weights, rcond=None)[0]
        errors = np.abs(terms @ solution - targets) / totals
        weights = 1 / totals / np.sqrt(np.maximum(1, errors / _USUAL_ERROR))
    return np.asarray(solution, np.float64), errors

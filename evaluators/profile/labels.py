"""From onnxruntime's profile of a network to what each kernel adds to an undisturbed run.

The profiler's own work is part of every duration that it reports: about 2 us a kernel and some more for each tensor
that it describes. How much is found from the networks' times without it: total = run overhead + sum over kernels of
(duration - a - b * inputs - c * constants). All is brought to the machine's typical mood.
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
_LARGEST_FACTOR = 1.4  # between the sum of a network's kernels and its total


@dataclass(frozen=True)
class Labels:
    """What the samples say about single kernels in the typical mood.

    Attributes:
        kernel_us: For each sample, the time of each kernel, `(n_kernels,)`; they add up to the run's, less overhead.
        total_us: For each sample, the time of a run, `(n_samples,)`.
        run_overhead_us: Time that a run costs besides its kernels.
        additive_error: Median relative error of the sums before they were made to fit.
    """

    kernel_us: list[Floats]
    total_us: Floats
    run_overhead_us: float
    additive_error: float


def labels_of(samples: Sequence[Sample], typical_us: float) -> Labels:
    """Takes the profiler's own time and the mood out of every duration.

    Args:
        samples: The timed networks.
        typical_us: The anchor's time in the mood that is wanted.
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
    known = np.array([(k.op, k.kind) in formulas for k in kernels])
    given = np.array(
        [t @ formulas[k.op, k.kind] if n else 1.0 for k, t, n in zip(kernels, terms, known, strict=True)]
    )
    found = sensitivities(
        [k for k, n in zip(kernels, known, strict=True) if n],
        np.log(times / np.maximum(given, _LEAST_US))[known],
        np.log(machine_loads)[known],
        np.sqrt(share)[known],
    )
    return _labels(samples, typical_us, found)


def _labels(samples: Sequence[Sample], typical_us: float, found: Mapping[Operator, float]) -> Labels:
    machine_loads = (
        np.array([(s.total_load_us, s.kernel_load_us) for s in samples]) / typical_us
    )  # (n_samples, 2)
    # What a network goes with: its kernels' powers, by their share of its time.
    power = np.array([np.average(powers(s.graph.kernels, found), weights=s.kernel_us) for s in samples])
    totals = np.array([s.total_us for s in samples]) / machine_loads[:, 0] ** power
    sums = np.array([s.kernel_us.sum() for s in samples]) / machine_loads[:, 1] ** power
    counts = np.stack([_counts(s.graph).sum(axis=0) for s in samples])
    terms = np.concatenate([-counts, np.ones((len(samples), 1))], axis=1)
    solution, errors = _robust_fit(terms, totals - sums, totals)
    overhead = max(float(solution[-1]), 0.0)
    kernel_us = []
    for sample, total, machine_load in zip(samples, totals, machine_loads[:, 1], strict=True):
        own = sample.kernel_us - machine_load * (_counts(sample.graph) @ solution[:-1])
        times = np.maximum(own, _LEAST_US) / machine_load ** powers(sample.graph.kernels, found)
        # What rounding to whole microseconds and noise leave is shared out, within reason.
        factor = (total - overhead) / times.sum()
        kernel_us.append(times * float(np.clip(factor, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)))
    return Labels(kernel_us, totals, overhead, float(np.median(errors)))


def _counts(graph: OpGraph) -> Floats:
    return np.array([(1, len(k.inputs), len(k.constants)) for k in graph.kernels], np.float64)


def _robust_fit(terms: Floats, wanted: Floats, totals: Floats) -> tuple[Floats, Floats]:
    """Least squares of relative errors, in which outliers count less; returns the solution and those errors."""
    weights = 1 / totals
    for _ in range(_ROUNDS):
        solution = np.linalg.lstsq(terms * weights[:, None], wanted * weights, rcond=None)[0]
        errors = np.abs(terms @ solution - wanted) / totals
        weights = 1 / totals / np.sqrt(np.maximum(1, errors / _USUAL_ERROR))
    return np.asarray(solution, np.float64), errors

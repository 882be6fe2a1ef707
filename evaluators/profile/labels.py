"""From onnxruntime's profile of a network to what each kernel adds to an undisturbed run.

The profiler's own work is part of every duration that it reports: about 2 us a kernel and some more for each tensor
that it describes. How much is found from the networks' undisturbed total times: total = run overhead + sum over
kernels of (duration - a - b * inputs - c * constants).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import OpGraph
from evaluators.profile.measure import Sample

Floats = NDArray[np.float64]

_LEAST_US = 0.1
_ROUNDS = 10
_USUAL_ERROR = 0.03  # relative; samples that deviate by more count less


@dataclass(frozen=True)
class Labels:
    """What the samples say about single kernels.

    Attributes:
        kernel_us: For each sample, the time of each kernel, `(n_kernels,)`; they add up to the run's, less overhead.
        run_overhead_us: Time that a run costs besides its kernels.
        additive_error: Median relative error of the sums before they were made to fit.
    """

    kernel_us: list[Floats]
    run_overhead_us: float
    additive_error: float


def labels_of(samples: Sequence[Sample]) -> Labels:
    """Takes the profiler's own time out of every duration."""
    totals = np.array([s.total_us for s in samples])
    sums = np.array([s.kernel_us.sum() for s in samples])
    counts = np.stack([_counts(s.graph).sum(axis=0) for s in samples])
    terms = np.concatenate([-counts, np.ones((len(samples), 1))], axis=1)
    solution, errors = _robust_fit(terms, totals - sums, totals)
    overhead = max(float(solution[-1]), 0.0)
    found = []
    for sample in samples:
        times = np.maximum(sample.kernel_us - _counts(sample.graph) @ solution[:-1], _LEAST_US)
        # What rounding to whole microseconds and noise leave is shared out, within reason.
        factor = (sample.total_us - overhead) / times.sum()
        found.append(times * float(np.clip(factor, 0.7, 1.4)))
    return Labels(found, overhead, float(np.median(errors)))


def _counts(graph: OpGraph) -> Floats:
    return np.array([(1, len(k.inputs), len(k.constants)) for k in graph.kernels], np.float64)


def _robust_fit(terms: Floats, wanted: Floats, totals: Floats) -> tuple[Floats, Floats]:
    """Least squares of relative errors, in which outliers count less; returns the solution and those errors."""
    weights = 1 / totals
    for _ in range(_ROUNDS):
        solution = np.linalg.lstsq(terms * weights[:, None], wanted * weights, rcond=None)[0]
        errors = np.abs(terms @ solution - wanted) / totals
        weights = 1 / totals / np.sqrt(np.maximum(1, errors / _USUAL_ERROR))
    return np.asarray(solution, np.float64), np.asarray(errors, np.float64)

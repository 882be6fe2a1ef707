"""The readable figures of a profile: throughput for each kernel class and dtype, bandwidth, overheads."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.graph import Kernel
from evaluators.devices.device import ANY, Device, DType
from evaluators.devices.kinds import KINDS

Floats = NDArray[np.float64]

FASTEST_MACS_PER_S = 1e13
_FASTEST_BYTES_PER_S = 1e12
_ROUNDS = 8
_USUAL_ERROR = 0.3  # relative; kernels that deviate by more count less


def fit_figures(
    name: str,
    kernels: Sequence[Kernel],
    times_us: Floats,
    run_overhead_us: float,
    runtime: str,
    description: str,
) -> Device:
    """Fits time = MACs / throughput + bytes / bandwidth + overhead by non-negative least squares of relative errors.

    Args:
        name: Name of the device.
        kernels: Timed kernels of many networks.
        times_us: Times of the kernels, `(n_kernels,)`.
        run_overhead_us: Time of a run besides its kernels.
        runtime: Description of the runtime.
        description: Description of the machine.
    """
    classes = sorted({(k.dtype, k.kind) for k in kernels if k.macs})
    kinds = [kind for kind in KINDS if any(k.kind == kind for k in kernels)]
    terms = np.stack([_terms(k, classes, kinds) for k in kernels])
    least = np.zeros(terms.shape[1])
    least[: len(classes)] = 1e6 / FASTEST_MACS_PER_S
    least[len(classes)] = 1e6 / _FASTEST_BYTES_PER_S
    coefficients = _fit(terms, times_us, least)
    macs_per_s: dict[str, dict[str, float]] = {}
    for (dtype, kind), us in zip(classes, coefficients, strict=False):
        macs_per_s.setdefault(dtype, {})[kind] = _rounded(1e6 / us)
    for computed_in, rates in macs_per_s.items():
        rates[ANY] = _typical(computed_in, rates, kernels)
    overheads = coefficients[len(classes) + 1 :]
    return Device(
        name=name,
        description=description,
        runtime=runtime,
        macs_per_s=macs_per_s,
        memory_bandwidth_bytes_per_s=_rounded(1e6 / coefficients[len(classes)]),
        kernel_overhead_us={kind: _rounded(us) for kind, us in zip(kinds, overheads, strict=True)},
        run_overhead_us=_rounded(run_overhead_us),
        fusion="onnxruntime",
        bound="sum",
    )


def _terms(kernel: Kernel, classes: Sequence[tuple[DType, str]], kinds: Sequence[str]) -> Floats:
    row = np.zeros(len(classes) + 1 + len(kinds))
    if kernel.macs:
        row[classes.index((kernel.dtype, kernel.kind))] = kernel.macs
    row[len(classes)] = kernel.input_bytes + kernel.output_bytes + kernel.weight_bytes
    row[len(classes) + 1 + kinds.index(kernel.kind)] = 1
    return row


def _fit(terms: Floats, times_us: Floats, least: Floats) -> Floats:
    from scipy.optimize import nnls

    weights = 1 / times_us
    for _ in range(_ROUNDS):
        weighted = terms * weights[:, None]
        scale = np.maximum(weighted.max(axis=0), 1e-30)
        more = nnls(weighted / scale, (times_us - terms @ least) * weights)[0] / scale
        errors = np.abs(terms @ (least + more) / times_us - 1)
        weights = 1 / times_us / np.sqrt(np.maximum(1, errors / _USUAL_ERROR))
    return np.asarray(least + more, np.float64)


def _typical(dtype: str, rates: dict[str, float], kernels: Sequence[Kernel]) -> float:
    """Returns the throughput of all timed classes together, MAC/s, for classes that were not timed."""
    macs = {kind: sum(k.macs for k in kernels if k.dtype == dtype and k.kind == kind) for kind in rates}
    return _rounded(sum(macs.values()) / max(sum(n / rates[kind] for kind, n in macs.items()), 1e-30))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")

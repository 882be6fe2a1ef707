"""The result of a profiling session, with the errors on held-out networks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.cost.latency.residual.kernel import KernelResidual
from evaluators.cost.latency.roofline import roofline
from evaluators.devices.device import Device
from evaluators.profile.figures import fit_figures
from evaluators.profile.files import write_profile
from evaluators.profile.labels import labels_of
from evaluators.profile.learn import Timed, fit_residual
from evaluators.profile.machine_load import Anchor
from evaluators.profile.measure import Sample

Floats = NDArray[np.float64]

_FOLDS = 3


@dataclass(frozen=True)
class Profile:
    """A device with its correction.

    Attributes:
        device: The figures, and the error on held-out networks.
        residual: The correction.
        samples: Number of timed networks.
        kernels: Number of their kernels.
        network_errors: Signed relative errors of held-out networks, `(n_networks,)`.
        class_errors: Kernel class and dtype to the median relative error of held-out kernels, with figures alone and
            corrected, and the number of kernels.
        machine_load: Description of the machine load during the session, as text.
    """

    device: Device
    residual: KernelResidual
    samples: int
    kernels: int
    network_errors: Floats
    class_errors: Mapping[tuple[str, str], tuple[float, float, int]]
    machine_load: str

    def write(self, folder: Path, options: str, when: str, minutes: float) -> tuple[Path, Path]:
        """Writes the YAML and the JSON file, and returns their paths."""
        source = f"{self.device.runtime} on {self.device.description}, {when}"
        figures = ("macs_per_s", "memory_bandwidth_bytes_per_s", "kernel_overhead_us", "run_overhead_us")
        sources = dict.fromkeys(figures, source)
        sources["error"] = f"{source}: {self.samples} random networks, each predicted from the others"
        notes = {
            "options": options,
            "when": when,
            "n_networks": self.samples,
            "n_kernels": self.kernels,
            "minutes": minutes,
            "machine_load": self.machine_load,
        }
        return write_profile(folder, self.device, self.residual, sources, notes)


def profile_of(name: str, samples: Sequence[Sample], anchor: Anchor, threads: int, seed: int) -> Profile:
    """Fits figures and correction, and cross-validates both."""
    import onnxruntime

    from evaluators.profile.machine_load import cpu_name

    labels = labels_of(samples, anchor.typical_us)
    timed = [
        Timed(s.graph, us, float(total))
        for s, us, total in zip(samples, labels.kernel_us, labels.total_us, strict=True)
    ]
    runtime = f"onnxruntime {onnxruntime.__version__}, CPU, {threads} thread{'s' * (threads > 1)}"
    kernels = [k for network in timed for k in network.graph.kernels]
    times = np.concatenate(labels.kernel_us)
    device = fit_figures(name, kernels, times, labels.run_overhead_us, runtime, cpu_name())
    errors, by_class = _cross_validate(timed, device, seed)
    device = replace(device, error={"latency_ms": float(f"{np.quantile(np.abs(errors), 0.8):.2g}")})
    residual = fit_residual(timed, device, seed)
    return Profile(
        device, residual, len(timed), len(kernels), errors, by_class, _machine_load(anchor, samples)
    )


def _machine_load(anchor: Anchor, samples: Sequence[Sample]) -> str:
    spread = float(np.median([sample.spread for sample in samples]))
    slower = anchor.typical_us / anchor.calm_us
    return (
        f"An anchor network took {anchor.typical_us:.1f} us at the median, to which all times are scaled, "
        f"{slower:.2f}x its undisturbed time ({anchor.calm_share:.0%} of its timings). Repeated runs spread by {spread:.1%}."
    )


def _cross_validate(
    timed: Sequence[Timed], device: Device, seed: int
) -> tuple[Floats, dict[tuple[str, str], tuple[float, float, int]]]:
    totals = np.empty(len(timed))
    errors: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for fold in range(_FOLDS):
        residual = fit_residual([t for i, t in enumerate(timed) if i % _FOLDS != fold], device, seed)
        for i in range(fold, len(timed), _FOLDS):
            network = timed[i]
            plain = roofline(network.graph, device).kernel_ms * 1e3
            corrected = residual.corrected_ms(network.graph.kernels, plain / 1e3) * 1e3
            totals[i] = (corrected.sum() + device.run_overhead_us) / network.total_us - 1
            for kernel, true, before, after in zip(
                network.graph.kernels, network.kernel_us, plain, corrected, strict=True
            ):
                errors[kernel.kind, kernel.dtype].append((abs(before / true - 1), abs(after / true - 1)))
    medians = {key: (*np.median(pairs, axis=0).tolist(), len(pairs)) for key, pairs in errors.items()}
    return totals, {key: (before, after, n) for key, (before, after, n) in medians.items()}

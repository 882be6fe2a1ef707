import numpy as np
import pytest

from evaluators.cost.graph import Kernel, OpGraph
from evaluators.profile.figures import fit_figures
from evaluators.profile.labels import labels_of
from evaluators.profile.measure import Sample


def kernel(macs, n_bytes, kind="conv", dtype="float32"):
    constants = ("w", "b") if macs else ()
    return Kernel(
        "k", "Conv", kind, dtype, macs, n_bytes, ("a",), ("b",), n_bytes, n_bytes, constants=constants
    )


def kernels(random, n):
    return tuple(
        kernel(int(random.integers(10**5, 10**7)), int(random.integers(10**3, 10**5)), kind)
        if kind == "conv"
        else kernel(0, int(random.integers(10**3, 10**5)), kind)
        for kind in random.choice(["conv", "elementwise"], n)
    )


def true_us(k):
    return k.macs / 5e4 + (k.input_bytes + k.output_bytes + k.weight_bytes) / 2e4 + 1


def samples(n=80, noise=0.0, seed=0, slowest=1.0):
    random = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        drawn = kernels(random, int(random.integers(3, 20)))
        times = np.array([true_us(k) for k in drawn])
        profiled = np.floor(times + [1.5 + 0.2 * len(k.constants) for k in drawn])
        total = (times.sum() + 6) * random.normal(1, noise)
        machine_loads = random.uniform(1.0, slowest, 2)  # of the plain and of the profiled runs
        graph = OpGraph(drawn, ("a",), ("b",), {}, 0, {})
        found.append(
            Sample(
                graph,
                total * machine_loads[0],
                100 * machine_loads[0],
                profiled * machine_loads[1],
                100 * machine_loads[1],
                0.0,
            )
        )
    return found


def test_the_profilers_overhead_is_removed():
    labels = labels_of(samples(), 100.0)
    assert labels.run_overhead_us == pytest.approx(6, abs=1.5)
    for sample, times in zip(samples(), labels.kernel_us, strict=True):
        np.testing.assert_allclose(times, [true_us(k) for k in sample.graph.kernels], rtol=0.3, atol=1.0)
        assert times.sum() + labels.run_overhead_us == pytest.approx(sample.total_us, rel=0.02)


def test_times_under_any_load_are_scaled_to_the_typical_load():
    labels = labels_of(samples(slowest=1.6), 100.0)
    for sample, times, total in zip(samples(), labels.kernel_us, labels.total_us, strict=True):
        assert total == pytest.approx(sample.total_us, rel=0.1)
        assert times.sum() + labels.run_overhead_us == pytest.approx(total, rel=0.02)


def test_the_figures_are_recovered():
    random = np.random.default_rng(1)
    drawn = kernels(random, 400)
    times = np.array([true_us(k) for k in drawn])
    device = fit_figures("d", drawn, times, 6.0, "runtime", "a machine")
    assert device.macs_per_s["float32"]["conv"] == pytest.approx(5e10, rel=0.02)
    assert device.macs_per_s["float32"]["default"] == pytest.approx(5e10, rel=0.02)
    assert device.memory_bandwidth_bytes_per_s == pytest.approx(2e10, rel=0.02)
    assert device.kernel_overhead_us["conv"] == pytest.approx(1, abs=0.3)
    assert (device.fusion, device.bound, device.run_overhead_us) == ("onnxruntime", "sum", 6.0)


def test_figures_are_finite_where_arithmetic_takes_no_time():
    drawn = [kernel(10**6, 10**5 * i) for i in range(1, 40)]
    device = fit_figures("d", drawn, np.array([k.input_bytes / 1e4 for k in drawn]), 0.0, "runtime", "")
    assert 0 < device.macs_per_s["float32"]["conv"] <= 1e13

import numpy as np
import pytest

from evaluators.cost.graph import Kernel
from evaluators.profile import machine_load
from evaluators.profile.machine_load import Anchor, powers, sensitivities


class Clock:
    """A simulated machine, on which a run of the anchor takes `run_us`."""

    def __init__(self):
        self.now_ns, self.run_us = 0, 100.0

    def run(self):
        self.now_ns += int(1000 * self.run_us)

    def __call__(self):
        return self.now_ns


def kernel(op):
    return Kernel("k", op, "conv", "float32", 10**6, 10**4, ("a",), ("b",), 10**4, 10**4)


def test_the_anchor_has_a_typical_and_an_undisturbed_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(machine_load, "perf_counter_ns", clock)
    anchor = Anchor(clock.run)
    n = len(anchor.timings_us)
    clock.run_us = 140
    assert [anchor.timing_us() for _ in range(3 * n)] == [140.0] * (3 * n)
    assert (anchor.typical_us, anchor.calm_us) == (140.0, 100.0)
    assert anchor.calm_share == pytest.approx(0.25)


def test_an_operators_sensitivity_to_the_load_is_fitted():
    random = np.random.default_rng(0)
    machine_loads = random.uniform(0, 0.5, 4000)  # logarithms
    kernels = [kernel(op) for op in random.choice(["Conv", "Relu"], 4000)]
    # The time of a ReLU is proportional to the machine load to the power of 0, that of a convolution to the power of 1.5.
    errors = np.array([0.5 if k.op == "Conv" else -1.0 for k in kernels]) * machine_loads
    found = sensitivities(kernels, errors + random.normal(0, 0.05, 4000), machine_loads, np.ones(4000))
    assert found["Conv", "conv"] == pytest.approx(1.5, abs=0.2)
    assert found["Relu", "conv"] == pytest.approx(0.0, abs=0.2)
    assert powers([kernel("Relu"), kernel("Gemm")], found).tolist() == [found["Relu", "conv"], 1.0]

"""What the plan of a compression study notes."""

import pytest

from search.planning import plan_compression


@pytest.mark.parametrize("devices", ["[host,stm32h743]", "[stm32h743]"])
@pytest.mark.parametrize("saturate", [True, False])
def test_kernels_that_saturate_are_noted_where_they_decide_the_accuracy(lab, monkeypatch, saturate, devices):
    monkeypatch.setattr(plan_compression, "integer_kernels_saturate", lambda: saturate)
    plan, _ = lab.planned(f"saturate_{saturate}_{len(devices)}", "one", f"device={devices}")
    noted = any("8-bit kernels" in note for note in plan.notes)
    assert noted == (saturate and "host" in devices)

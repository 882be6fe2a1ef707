"""What the plan of a compression study notes."""

import pytest

from search.planning import plan_compression


@pytest.mark.parametrize("saturate", [True, False])
def test_kernels_that_saturate_are_noted(lab, monkeypatch, saturate):
    monkeypatch.setattr(plan_compression, "integer_kernels_saturate", lambda: saturate)
    plan, _ = lab.planned(f"saturate_{saturate}")
    assert any("8-bit kernels saturate" in note for note in plan.notes) == saturate

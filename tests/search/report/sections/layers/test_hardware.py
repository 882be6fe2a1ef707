import re
from dataclasses import replace

import pytest

from evaluators.testing import model_from_text
from search.report.page.markup import Section
from search.report.sections.layers.hardware import device_costs, hardware
from search.report.sections.layers.network import section


def test_it_shows_memory_over_time_and_every_kernel(results):
    body = hardware(device_costs(results, results.picks[0]))
    tips = re.findall(r'data-tip="([^"]*)"', body)
    assert "1.75 KiB" in tips[0]  # 4 bytes of 3 x 64 and of 4 x 64 elements
    assert "1.02 KiB" in tips[1]  # of 4 x 64 and 4
    assert body.count('class="limit"') == 1
    assert "Memory peaks at <strong>" in body
    assert f"{4 * 64 * 27:,}" in body  # the convolution's MACs
    assert "ms, modelled" in body
    assert "87.5 % of the 2 KiB" in body


def test_heights_are_in_proportion(results):
    body = hardware(device_costs(results, results.picks[0]))
    now, later = (
        [float(h) for h in re.findall(rf'height="([\d.]+)" rx="2" class="part{part}"', body)]
        for part in (0, 1)
    )
    first, second = (a + b for a, b in zip(now[:2], later[:2], strict=True))
    assert first / second == pytest.approx(4 * (3 * 64 + 4 * 64) / (4 * (4 * 64 + 4)), rel=0.01)


def test_unknown_operators_are_named(results):
    model = model_from_text("a (float[n, 4, 4] input) => (float[n] output) { output = Det (input) }", {})
    results.model_path(results.picks[0].number).write_bytes(model.onnx_bytes)
    assert "Not known to the cost models:</strong> Det (1 times)" in hardware(
        device_costs(results, results.picks[0])
    )


def test_without_a_file_or_a_pick_nothing_is_known_of_the_device(results):
    results.model_path(results.picks[0].number).unlink()
    assert device_costs(results, results.picks[0]) is None
    found = section(replace(results, picks=()))
    assert isinstance(found, Section)
    assert "Memory over time" not in found.body

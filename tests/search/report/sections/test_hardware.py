from dataclasses import replace

import pytest

from evaluators.testing import model_from_text, tiny_model
from search.report.page.markup import Charts
from search.report.sections.hardware import section
from search.report.testing import fake_results

BOARD = {"runtime": "r", "macs_per_s": {"float32": 1e6, "int8": 4e6}, "ram_bytes": "2 KiB"}


@pytest.fixture
def results(tmp_path):
    fake = fake_results(tmp_path, 24, ("board",))
    fake = replace(fake, config={**fake.config, "device": {"board": BOARD}})
    path = fake.model_path(fake.picks[0].number)
    path.parent.mkdir()
    path.write_bytes(tiny_model().onnx_bytes)
    return fake


def test_it_shows_memory_over_time_and_every_kernel(results):
    charts = Charts()
    found = section(results, charts)
    assert found is not None
    (spec,) = charts.specs.values()
    now, later = spec["traces"]
    live = [4 * (3 * 64 + 4 * 64) / 1024, 4 * (4 * 64 + 4) / 1024]
    assert [a + b for a, b in zip(now["y"], later["y"], strict=True)][:2] == pytest.approx(live)
    assert spec["layout"]["shapes"][0]["y0"] == 2  # the limit, in KiB
    assert "Memory peaks at <strong>" in found.body
    assert f"{4 * 64 * 27:,}" in found.body  # the convolution's MACs
    assert "ms, modelled" in found.body
    assert "87.5 % of the 2 KiB" in found.body


def test_unknown_operators_are_named(results):
    model = model_from_text("a (float[n, 4, 4] input) => (float[n] output) { output = Det (input) }", {})
    results.model_path(results.picks[0].number).write_bytes(model.onnx_bytes)
    found = section(results, Charts())
    assert found is not None
    assert "Not known to the cost models:</strong> Det (1 times)" in found.body


def test_without_a_file_or_a_pick_there_is_no_section(results):
    results.model_path(results.picks[0].number).unlink()
    assert section(results, Charts()) is None
    assert section(replace(results, picks=()), Charts()) is None

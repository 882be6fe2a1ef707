import re
from dataclasses import replace

import pytest

from search.report.sections.layers.hardware import device_costs
from search.report.sections.layers.picture import picture
from search.report.testing import LAYERS


def test_without_costs_the_compared_layers_are_the_rows(results):
    drawn = picture(results.trial(results.best))
    assert [name for name in LAYERS if f"<code>{name}</code>" in drawn] == list(LAYERS)
    assert "weights" not in drawn  # bits and bytes are of kernels


def test_kernels_have_bits_time_and_bytes(results):
    pick = results.picks[0]
    costs = device_costs(results, pick)
    drawn = picture(replace(results.trial(pick.number), details={}), costs)
    assert drawn.count("<tr>") == 1 + len(costs.graph.kernels)
    assert 'class="bits b32">32<' in drawn
    shares = [int(share) for share in re.findall(r"\((\d+) %\)", drawn)]
    assert sum(shares) == pytest.approx(100, abs=len(shares))


def test_channels_that_are_left_and_noise_are_those_of_the_layer(results):
    pick = results.picks[0]
    costs = device_costs(results, pick)
    name = costs.graph.kernels[0].name
    layers = [{"layer": f"{name}.weight", "output_sqnr_db": 12.5}]
    drawn = picture(
        replace(results.trial(pick.number), details={"layers": layers}), costs, {f"{name}.weight": [8, 6]}
    )
    assert "6 of 8" in drawn
    assert 'style="width:75%"' in drawn
    assert "12.5 dB" in drawn


def test_a_layer_that_equals_the_float_models_has_no_noise(results):
    layers = [{"layer": "a", "output_sqnr_db": 200.0}, {"layer": "b", "output_sqnr_db": 20.0}]
    drawn = picture(replace(results.trial(results.best), details={"layers": layers}))
    assert "as in float" in drawn
    assert "200" not in drawn


def test_nothing_known_is_no_picture(results):
    assert picture(replace(results.trial(results.best), details={})) == ""

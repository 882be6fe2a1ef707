import re
from dataclasses import replace
from itertools import pairwise

import pytest

from search.report.findings.allocation import allocation_of
from search.report.report import report_html
from search.report.sections.allocation import section
from search.report.testing import fake_results, hostile_results, hostile_text
from spaces.candidate import Candidate

LOSSES = {"a": {4: 0.5, 8: 0.001}, "<b>": {4: 0.02, 8: 0.0}}
SIZES = {"a": 100, "<b>": 300}


def told(losses=None, budgets=()):
    losses = LOSSES if losses is None else losses
    units = {
        f"quantize.weight_bits[{name}]": {"layers": [name], "n_weights": SIZES.get(name, 10), "losses": row}
        for name, row in losses.items()
    }
    curve = [[4.0, 0.52], [5.0, 0.021], [8.0, 0.001]]
    return {"sensitivity": "kl", "units": units, "curve": curve, "budgets": list(budgets)}


def allocated(results, proposals, widths, **knobs):
    """Gives all trials an allocation."""
    knobs |= {f"quantize.weight_bits[{name}]": width for name, width in widths.items()}
    trials = tuple(replace(t, candidate=Candidate({**t.candidate, **knobs})) for t in results.trials)
    return replace(results, proposals=proposals, trials=trials)


@pytest.fixture
def results(tmp_path):
    return fake_results(tmp_path)


def test_without_an_allocator_there_is_no_section(results):
    assert section(results) is None
    assert 'id="allocation"' not in report_html(results)


def test_bits_and_rounding_of_each_layer_and_the_losses_that_led_there(results):
    found = section(allocated(results, told(), {"a": 8, "<b>": 4}, **{"quantize.rounding": "gptq"}))
    assert "<strong>5.00 bits per weight</strong>, rounding gptq" in found.body
    assert "Most sensitive is <strong>a</strong>: 0.5 at 4 bits; it has 8 bits." in found.body
    assert re.findall(r'class="bold">(\d+)<', found.body) == ["8", "4"]
    assert 'a: 8 bits; &lt;b&gt;: 4 bits">' in found.body
    cells = re.findall(r"<td[^>]*>(.*?)</td>", found.body)
    assert cells[:6] == ["<code>a</code>", "100", "8", "gptq", "0.5", "1.0e-03"]


def test_rounding_of_a_layers_own(results):
    knobs = {"quantize.rounding[a]": "adaround", "quantize.rounding": "nearest"}
    found = section(allocated(results, told(), {"a": 8, "<b>": 4}, **knobs))
    assert "rounding adaround and nearest" in found.body


def test_without_a_knob_of_rounding_none_is_named(results):
    found = section(allocated(results, told(), {"a": 8, "<b>": 4}))
    assert "rounding" not in found.body


def test_budgets_are_marked_where_they_bind(results):
    budgets = [
        {"name": "packed_bytes", "limit": 2048, "bits": 5.0},
        {"name": "latency_ms on <chip>", "limit": 3.0, "bits": 4.5},
        {"name": "energy_uj on dsp", "limit": 9.0, "bits": 8.0},  # binds nowhere
    ]
    found = section(allocated(results, told(budgets=budgets), {"a": 8, "<b>": 4}))
    assert found.body.count('class="budget"') == 2
    assert "packed_bytes ≤ 2 KiB" in found.body
    assert "latency_ms on &lt;chip&gt; ≤ 3" in found.body
    assert "The budget packed_bytes ≤ 2 KiB allows 5.00 bits per weight." in found.body
    assert "energy_uj" not in found.body


def test_trials_are_placed_on_the_curve(results):
    told_of = allocated(results, told(), {"a": 8, "<b>": 4})
    assert allocation_of(told_of).place({"quantize.weight_bits[a]": 8, "quantize.weight_bits[<b>]": 4}) == (
        5.0,
        pytest.approx(0.021),
    )
    found = section(told_of)
    assert found.body.count('class="trial"') >= len(results.trials)
    assert 'class="pick"' in found.body


def test_the_curve_has_a_step_for_each_of_its_allocations(results):
    found = section(allocated(results, told(), {"a": 8, "<b>": 4}))
    (corners,) = re.findall(r'<polyline points="([^"]+)"', found.body)
    places = [tuple(map(float, corner.split(","))) for corner in corners.split()]
    assert len(places) == 5
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(places))
    assert places == sorted(places)  # to the right and down


def test_many_layers_are_the_most_sensitive_ones_and_all_are_in_the_table(results):
    losses = {f"layer{i}": {4: 1.0 + i, 8: 0.1} for i in range(80)}
    found = section(allocated(results, told(losses), dict.fromkeys(losses, 4)))
    assert "(the 60 most sensitive of 80 layers)" in found.body
    assert found.body.count('class="bold"') == 60
    assert found.body.count("<code>layer") == 80


def test_a_study_without_a_feasible_trial_has_the_curve(results):
    found = section(replace(allocated(results, told(), {"a": 8, "<b>": 4}), best=None))
    assert "Least loss for every number of bits" in found.body
    assert "Bits of each layer in trial" not in found.body


def test_losses_of_nothing_and_one_width_are_drawn(results):
    losses = {"a": {8: 0.0}, "<b>": {8: 0.0}}
    proposals = {**told(losses), "curve": [[8.0, 0.0], [8.0, 0.0]]}
    assert section(allocated(results, proposals, {"a": 8, "<b>": 8})) is not None


def test_texts_from_elsewhere_are_escaped(tmp_path):
    evil = hostile_text()
    losses = {evil: {4: 0.5, 8: 0.1}}
    budgets = [{"name": evil, "limit": 1.0, "bits": 4.5}]
    page = report_html(
        allocated(hostile_results(tmp_path), told(losses, budgets), {evil: 4}, **{"quantize.rounding": evil})
    )
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
